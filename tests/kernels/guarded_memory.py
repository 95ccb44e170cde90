"""Device memory for the checks in this folder, which run on the host build of the kernels and on a GPU alike.

What a kernel reads lies in allocations of exactly its size, so that a sanitizer sees each byte beyond; so does what
kernels alone write and read. Results lie between guard zones, and are filled with a pattern before.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_GUARD_BYTES = 512  # keeps the alignment of what lies between
_GUARD, _FILLING = 0xA5, 0xEE


@dataclass(frozen=True)
class Device:
    """The four calls that memory needs; a GPU's wait for its work first.

    Attributes:
        allocate: bytes to address.
        release: of an address.
        upload: bytes to an address.
        download: so many bytes from an address.
    """

    allocate: Callable[[int], int]
    release: Callable[[int], None]
    upload: Callable[[int, bytes], None]
    download: Callable[[int, int], bytes]


def host_device() -> Device:
    """The C library's heap: that of AddressSanitizer, where it is loaded."""
    heap = ctypes.CDLL(None)
    heap.malloc.restype = ctypes.c_void_p
    return Device(
        lambda size: int(heap.malloc(ctypes.c_size_t(size))),
        lambda address: heap.free(ctypes.c_void_p(address)),
        lambda address, data: ctypes.memmove(address, data, len(data)) and None,
        ctypes.string_at,
    )


class GuardedMemory:
    """Allocations of one check, released at its end."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._allocations: list[int] = []
        self._rooms: dict[int, int] = {}

    def __enter__(self) -> GuardedMemory:
        return self

    def __exit__(self, *_: object) -> None:
        for address in self._allocations:
            self._device.release(address)

    def put(self, array: NDArray[Any], offset: int = 0) -> int:
        """The address of a copy, `offset` bytes into its allocation.

        The bytes before it are written too: kernels load the whole word that the first byte is in.
        """
        data = bytes([_GUARD]) * offset + np.ascontiguousarray(array).tobytes()
        address = self._allocate(len(data))
        self._device.upload(address, data)
        return address + offset

    def room(self, size: int) -> int:
        """The address of `size` bytes between guard zones."""
        address = self._allocate(size + 2 * _GUARD_BYTES)
        guard = bytes([_GUARD]) * _GUARD_BYTES
        self._device.upload(address, guard + bytes([_FILLING]) * size + guard)
        self._rooms[address + _GUARD_BYTES] = size
        return address + _GUARD_BYTES

    def scratch(self, size: int) -> int:
        """The address of `size` bytes that kernels alone write and read.

        An allocation of exactly that size, which nobody has written: a sanitizer sees accesses beyond it, and on a GPU
        also reads of what no kernel wrote.
        """
        return self._allocate(size)

    def read(self, address: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A copy of what was written to a room. Raises AssertionError where a guard zone of any room was."""
        for room, size in self._rooms.items():
            for guard in (room - _GUARD_BYTES, room + size):
                zone = np.frombuffer(self._device.download(guard, _GUARD_BYTES), np.uint8)
                touched = np.flatnonzero(zone != _GUARD)
                assert touched.size == 0, f"written outside: at {guard + int(touched[0]) - room} of {size} bytes"
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return np.frombuffer(self._device.download(address, size), dtype).reshape(shape)

    def _allocate(self, size: int) -> int:
        # Some allocators return no address for nothing.
        address = self._device.allocate(max(size, 1))
        self._allocations.append(address)
        return address
