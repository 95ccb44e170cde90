"""Device and pinned host memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.device.driver import check, load_driver, primary_context
from samrt.errors import BackendError
from samrt.processes import finalize_here, this_process

# cuMemAlloc's own alignment. An empty array gets that much, as TensorRT wants an address for it too.
_SMALLEST = 256


class Memory:
    """A block of device or pinned host memory, freed once: by `close` or with the last reference.

    A forked child frees nothing of its parent's, and cannot use it: `process` made it.
    """

    def __init__(self, device: int, size: int, *, pinned: bool = False) -> None:
        self.device = device
        self.size = size
        driver = load_driver()
        bytes_ = max(size, _SMALLEST)
        with primary_context(device):
            if pinned:
                self.ptr = int(check(driver.cuMemAllocHost(bytes_), f"allocating {bytes_:,} bytes of pinned memory"))
            else:
                self.ptr = int(check(driver.cuMemAlloc(bytes_), f"allocating {bytes_:,} bytes of GPU memory"))
        self.process = this_process()
        self._free = finalize_here(self, _free, driver.cuMemFreeHost if pinned else driver.cuMemFree, device, self.ptr)

    def host_view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Pinned memory from its start as an array. It must not be used after `close`."""
        block = (ctypes.c_char * max(self.size, _SMALLEST)).from_address(self.ptr)
        view: NDArray[Any] = np.ndarray(shape, dtype, buffer=memoryview(block))
        return view

    def close(self) -> None:
        """Give the memory back. May be called again."""
        self._free()


def _free(function: Callable[[int], Any], device: int, ptr: int) -> None:
    # Runs in garbage collection and at exit, where the context may be gone and its memory with it.
    with suppress(BackendError), primary_context(device):
        function(ptr)
