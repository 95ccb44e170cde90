"""Arrays in GPU memory: samrt's own, and views of those of PyCUDA, CuPy, torch and others, without a copy."""

from __future__ import annotations

import importlib
import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from samrt.device.driver import (
    check,
    check_process,
    context_of_pointer,
    current_context,
    load_core,
    load_driver,
    primary_context,
)
from samrt.device.memory import Memory
from samrt.device.session import DeviceSession
from samrt.errors import BackendError, InputError

# DLPack's device types that a GPU reads: CUDA and CUDA managed memory.
_DLPACK_ON_GPU = (2, 13)


class DeviceArray:
    """A C-contiguous array in GPU memory that it owns, complete when it is handed out.

    torch, CuPy, PyCUDA and others take it without a copy, through `__cuda_array_interface__` or `__dlpack__`. The
    memory is freed once, with the last reference to it; `close` gives up this one.

    Attributes:
        shape: lengths of the axes.
        dtype: NumPy's dtype.
        device: index of the GPU.
    """

    def __init__(self, memory: Memory, shape: tuple[int, ...], dtype: DTypeLike, offset: int = 0) -> None:
        """Take `memory`, from `offset` bytes on."""
        self.shape = shape
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.device = memory.device
        self._memory: Memory | None = memory
        self._offset = offset
        if offset + self.nbytes > memory.size:
            raise BackendError(f"{memory.size} bytes of GPU memory do not hold an array {shape} of {self.dtype}")

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def ptr(self) -> int:
        """Address in GPU memory.

        Raises:
            BackendError: the array is closed.
        """
        return self._held().ptr + self._offset

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.ptr if self.nbytes else 0, False),
            "strides": None,
            # Complete already: there is no stream to wait for.
            "stream": None,
            "version": 3,
        }

    def __dlpack__(self, **arguments: Any) -> Any:
        # cuda.core refuses a device altogether, also the one where the array is.
        if arguments.get("dl_device") == self.__dlpack_device__():
            del arguments["dl_device"]
        return self._view().__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        self._held()
        return (_DLPACK_ON_GPU[0], self.device)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("an array in GPU memory cannot become a NumPy array without a copy")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without axes has no length")
        return self.shape[0]

    def __getitem__(self, rows: slice | int) -> DeviceArray:
        """One row of the first axis, or some consecutive ones; they share the memory, and keep it.

        Raises:
            InputError: the array has no axes, or `rows` is anything else, as a step other than 1.
            IndexError: there is no such row.
        """
        if not self.shape:
            raise InputError("an array without axes has no rows; copy it with numpy() first")
        length, *rest = self.shape
        row = math.prod(rest) * self.dtype.itemsize
        if isinstance(rows, slice):
            start, stop, step = rows.indices(length)
            if step != 1:
                raise InputError("an array in GPU memory is sliced in steps of 1 only; copy it with numpy() first")
            count = max(0, stop - start)
            return DeviceArray(self._held(), (count, *rest), self.dtype, self._offset + (start * row if count else 0))
        try:
            index = operator.index(rows)
        except TypeError as error:
            raise InputError(
                f"an array in GPU memory has rows and slices of them, not [{rows!r}]; copy it with numpy() first"
            ) from error
        if not -length <= index < length:
            raise IndexError(f"there is no row {index} of {length}")
        return DeviceArray(self._held(), tuple(rest), self.dtype, self._offset + index % length * row)

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype}, device={self.device})"

    def numpy(self) -> NDArray[Any]:
        """A copy on the host."""
        result = np.empty(self.shape, self.dtype)
        if self.nbytes:
            source, driver = self.ptr, load_driver()
            with primary_context(self.device):
                check(driver.cuMemcpyDtoH(result.ctypes.data, source, self.nbytes), "a copy to the host")
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        raise InputError("an array in GPU memory is not pickled or copied; copy it to the host with numpy() first")

    def close(self) -> None:
        """Give up the memory: it is freed when no slice and no DLPack export of it is left. May be called again.

        What was made from `__cuda_array_interface__` must not be used any more.
        """
        self._memory = None

    def _held(self) -> Memory:
        if self._memory is None:
            raise BackendError("this array in GPU memory is closed; compute it again")
        check_process(self._memory.process, "this array in GPU memory was made")
        return self._memory

    def _view(self) -> Any:
        core = load_core()
        utils = importlib.import_module("cuda.core.utils")
        held = self._held()
        with primary_context(self.device):
            # The export owns the memory, not this array, which may be closed first.
            buffer = core.Buffer.from_handle(self.ptr, self.nbytes, owner=held)
        return utils.StridedMemoryView.from_buffer(buffer, self.shape, dtype=self.dtype, itemsize=self.dtype.itemsize)


@dataclass(frozen=True, eq=False)
class DeviceView:
    """Somebody's C-contiguous array in GPU memory: address, shape, and what keeps it alive."""

    ptr: int
    shape: tuple[int, ...]
    keeps: object


def is_device_array(array: object) -> bool:
    """Whether `array` lies in GPU memory, going by `__cuda_array_interface__` and DLPack."""
    if isinstance(array, (np.ndarray, np.generic)):
        return False
    # DLPack first: torch raises where the other interface of a tensor that needs a gradient is merely looked for.
    device = getattr(array, "__dlpack_device__", None)
    if device is not None:
        try:
            return int(device()[0]) in _DLPACK_ON_GPU
        except Exception:  # no storage, as of torch's "meta" device
            return False
    return hasattr(array, "__cuda_array_interface__")


def view_device_array(array: Any, session: DeviceSession, dtype: DTypeLike, name: str = "the array") -> DeviceView:
    """View an array in GPU memory without a copy.

    The session's stream waits for the stream that the producer names, and for CUDA's default stream where it names
    none, as PyCUDA does; work on other streams is the caller's to wait for. Keep the view until the work that reads it
    is done: it keeps the array alive.

    Args:
        array: anything with `__cuda_array_interface__` (version 3) or DLPack: of PyCUDA, CuPy, torch, or samrt's own.
        session: where it will be read.
        dtype: the type of number that it must have.
        name: what it is called in messages.

    Raises:
        InputError: it is of another dtype, another GPU or another CUDA context, or not C-contiguous.
    """
    wanted = np.dtype(dtype)
    if isinstance(array, DeviceArray):
        _check_kind(name, array.dtype, wanted, array.device, session)
        return DeviceView(array.ptr, array.shape, array._held())
    utils = importlib.import_module("cuda.core.utils")
    with session.current():
        try:
            view = utils.StridedMemoryView.from_any_interface(array, stream_ptr=session.stream)
            found = view.dtype
            if not hasattr(array, "__dlpack__") and array.__cuda_array_interface__.get("stream") is None:
                session.wait_for_default_stream()
        except Exception as error:  # each library refuses in its own way, as torch does where gradients are wanted
            raise InputError(
                f"{name} cannot be read in GPU memory: {error}; hand in a plain {wanted} array there"
            ) from error
        shape = tuple(int(n) for n in view.shape)
        ptr = int(view.ptr or 0)
        if not view.is_device_accessible:
            raise InputError(f"{name} is not in GPU memory; hand in a NumPy array, or copy it to the GPU first")
        # An empty array has no address that CUDA could tell the device by.
        _check_kind(name, found, wanted, int(view.device_id) if math.prod(shape) else session.gpu.index, session)
        if not _is_contiguous(shape, view.strides):
            raise InputError(f"{name} is not C-contiguous (strides {view.strides} of elements); make it so first")
        context = context_of_pointer(ptr) if ptr else None
        if context not in (None, current_context()):
            raise InputError(
                f"{name} belongs to a CUDA context other than the primary one of GPU {session.gpu.index}; with PyCUDA, "
                "import pycuda.autoprimaryctx instead of pycuda.autoinit"
            )
    return DeviceView(ptr, shape, (view, array))


def _check_kind(name: str, found: np.dtype[Any], wanted: np.dtype[Any], device: int, session: DeviceSession) -> None:
    if found != wanted:
        raise InputError(f"{name} must be {wanted}, not {found}; convert it first")
    if device != session.gpu.index:
        raise InputError(f"{name} is on GPU {device}, the engine runs on GPU {session.gpu.index}; copy it there first")


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> bool:
    if strides is None or 0 in shape:
        return True
    expected = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        # The stride of an axis of length 1 is never used.
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True
