"""Where an engine's inputs and outputs lie: blocks of GPU memory, and what brings arrays into and out of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from samrt.backends.tensorrt.ranges import Shape
from samrt.bundle.contract import Tensor
from samrt.device.array import DeviceArray, DeviceView, is_device_array, view_device_array
from samrt.device.memory import Memory
from samrt.device.session import DeviceSession
from samrt.errors import InputError

# Kernels may load several numbers at once, so an address that is less aligned than CUDA's own is not used directly.
_ALIGNMENT = 256


@dataclass(frozen=True, eq=False)
class Given:
    """One input of a call: a host array, or a view of GPU memory, which keeps that memory alive."""

    name: str
    shape: Shape
    nbytes: int
    host: Any = None
    view: DeviceView | None = None


def read_input(tensor: Tensor, source: Any, session: DeviceSession) -> Given:
    """What a caller hands in for `tensor`, which the session will read.

    Raises:
        InputError: it is no array, has another dtype, or cannot be read in GPU memory.
    """
    if is_device_array(source):
        view = view_device_array(source, session, tensor.dtype, tensor.name)
        return Given(tensor.name, view.shape, _bytes(tensor, view.shape), view=view)
    try:
        array = np.asarray(source)
    except Exception as error:  # rows of unequal length, or a tensor whose library refuses in its own way
        raise InputError(
            f"{tensor.name} cannot be read as a NumPy array: {error}; hand in a plain {tensor.dtype} array"
        ) from error
    if array.dtype != tensor.dtype:
        raise InputError(f"{tensor.name} must be {tensor.dtype}, not {array.dtype}; convert it first")
    return Given(tensor.name, array.shape, array.nbytes, host=array)


class Buffers:
    """A block of GPU memory for each input and output of an engine, and page-locked staging memory where needed.

    All copies are put on the session's stream; within `DeviceSession.current`.
    """

    def __init__(self, session: DeviceSession) -> None:
        self._session = session
        self._memories: dict[str, Memory] = {}
        self._staging: dict[str, Memory] = {}

    def allocate(self, tensor: Tensor, shape: Shape) -> None:
        """Make the block of `tensor`, for arrays up to `shape`."""
        self._memories[tensor.name] = self._session.allocate(_bytes(tensor, shape))

    def address_of(self, name: str) -> int:
        """Where the block of the tensor `name` lies."""
        return self._memories[name].ptr

    def put(self, given: Iterable[Given], *, in_place: bool) -> dict[str, int]:
        """Copy the inputs into their blocks; the addresses of those that are read where they lie, if `in_place`."""
        direct = {}
        for each in given:
            target = self._memories[each.name].ptr
            if each.view is None:
                staging = self._staging_of(each.name)
                np.copyto(staging.host_view(each.shape, each.host.dtype), each.host)
                self._session.copy(target, staging.ptr, each.nbytes)
            elif in_place and each.nbytes and each.view.ptr % _ALIGNMENT == 0:
                direct[each.name] = each.view.ptr
            else:
                self._session.copy(target, each.view.ptr, each.nbytes)
        return direct

    def fetch(self, tensor: Tensor, shape: Shape, *, stays: bool) -> Any:
        """The output `tensor`: a new `DeviceArray` if it `stays`, else staging memory, which the next call writes."""
        source, size = self._memories[tensor.name].ptr, _bytes(tensor, shape)
        if stays:
            array = DeviceArray(self._session.allocate(size), shape, tensor.dtype)
            self._session.copy(array.ptr, source, size)
            return array
        staging = self._staging_of(tensor.name)
        self._session.copy(staging.ptr, source, size)
        return staging.host_view(shape, np.dtype(tensor.dtype))

    def close(self) -> None:
        """Give all memory back. May be called again."""
        for memory in (*self._memories.values(), *self._staging.values()):
            memory.close()

    def _staging_of(self, name: str) -> Memory:
        # Made when first needed: an embedding that stays on the GPU needs none, and page-locked memory is scarce.
        if name not in self._staging:
            self._staging[name] = self._session.allocate_pinned(self._memories[name].size)
        return self._staging[name]


def _bytes(tensor: Tensor, shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(tensor.dtype).itemsize
