"""The program that ncu watches: one attention kernel at a model's size, on random numbers, once.

python profiled.py LIBRARY HEAD_DIM HEADS WINDOW TILE; tile -1 is the default shape
"""

from __future__ import annotations

import sys

import numpy as np
from driver import Driver
from kernel_checks import memory

from samrt.kernels.library import AttentionShape, AttentionTensors, load_kernels

_GRID = 64


def main(library: str, *numbers: str) -> None:
    head_dim, heads, window, tile = map(int, numbers)
    random, driver = np.random.default_rng(0), Driver()
    shape = AttentionShape(1, _GRID, _GRID, heads, head_dim, window)
    rows = 2 * (window or _GRID) - 1
    with memory(driver) as held:

        def put(*sizes: int) -> int:
            return held.put(random.standard_normal(sizes, np.float32).astype(np.float16))

        out = held.scratch(2 * _GRID**2 * heads * head_dim)
        tensors = AttentionTensors(
            put(_GRID**2, 3, heads, head_dim), out, put(3, heads, head_dim), put(rows, head_dim), put(rows, head_dim)
        )
        load_kernels(library).attention(shape, tensors, tile=None if tile < 0 else tile)
        driver.synchronize()


if __name__ == "__main__":
    main(*sys.argv[1:])
