"""The kernel library that the phase `kernels_build` found, and what is in it."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

import kernel_checks  # noqa: F401  puts tests/kernels on the path
from work import NotHereError, Work

from samrt.kernels.library import KERNELS_VARIABLE, Kernels, load_kernels


def use(work: Work) -> Kernels:
    """Load the library, and let this process and its children find it as samrt does.

    Raises:
        NotHereError: there is none.
    """
    path = path_of(work)
    if path is None:
        raise NotHereError("no kernel library was found; see the phase kernels_build")
    os.environ[KERNELS_VARIABLE] = path
    return load_kernels(path)


def path_of(work: Work) -> str | None:
    """The library's file, or None."""
    found: str | None = work.of("kernels_build").get("library", {}).get("path")
    return found


def shared_bytes(kernels: Kernels, head_dim: int, tile: int, rows: int) -> int:
    """Shared memory that a block of this tile shape needs for an attention over `rows` rows of tokens."""
    function = ctypes.CDLL(str(kernels.path))["samrt_attention_shared_bytes"]
    function.restype = ctypes.c_size_t
    return int(function(head_dim, tile, rows))


def has_tile(kernels: Kernels, head_dim: int, tile: int) -> bool:
    """Whether this tile shape was compiled for fp16 with bias."""
    return bool(ctypes.CDLL(str(kernels.path))["samrt_attention_has_tile"](0, head_dim, tile, 1))


@dataclass(frozen=True)
class AttentionKernel:
    """One attention kernel in the library; tile -1 is the default shape.

    Attributes:
        precision: "fp16" or "bf16".
    """

    precision: str
    head_dim: int
    tile: int
    tile_name: str
    with_bias: bool

    def __str__(self) -> str:
        bias = "with" if self.with_bias else "without"
        return f"{self.precision}, {self.head_dim} wide, tile {self.tile_name}, {bias} bias"


def attention_kernels(kernels: Kernels) -> list[AttentionKernel]:
    """All that are compiled. Raises ImportError without torch, which the module that lists them needs."""
    from check_attention import instances

    return [
        AttentionKernel(found.precision, found.head_dim, found.tile, found.name, with_bias)
        for with_bias in (True, False)
        for found in instances(kernels, with_bias)
    ]
