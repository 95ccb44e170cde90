"""Arrays on the device for the engines that are timed, without a framework."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from driver import Driver
from numpy.typing import NDArray


class _OnDevice:
    """Memory on the device, described by the CUDA Array Interface, version 3."""

    def __init__(self, address: int, like: NDArray[Any]) -> None:
        self.__cuda_array_interface__ = {
            "shape": like.shape,
            "typestr": like.dtype.str,
            "data": (address, False),
            "version": 3,
            "strides": None,
            "stream": None,  # uploaded before anybody reads it
        }


@contextmanager
def on_device(driver: Driver, array: NDArray[Any]) -> Iterator[Any]:
    """A copy of `array` in device memory, with `__cuda_array_interface__`."""
    with driver.memory(array.nbytes) as address:
        driver.upload(address, np.ascontiguousarray(array).tobytes())
        yield _OnDevice(address, array)


def seeded_image(side: int, batch: int = 1) -> NDArray[np.float32]:
    """A normalised image, float32 [batch, 3, S, S]."""
    return np.random.default_rng(0).normal(size=(batch, 3, side, side)).astype(np.float32)


def seeded_prompts(side: int, low_res: int, prompts: int, points: int) -> dict[str, NDArray[Any]]:
    """The decoder's inputs but for the embedding: foreground points inside the image, no masks."""
    coords = np.random.default_rng(1).uniform(0, side, (prompts, points, 2)).astype(np.float32)
    return {
        "point_coords": coords,
        "point_labels": np.ones((prompts, points), np.int32),
        "mask_input": np.zeros((prompts, 1, low_res, low_res), np.float32),
        "has_mask_input": np.zeros(prompts, np.float32),
    }
