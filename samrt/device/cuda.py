"""CUDA through NVIDIA's own bindings: which GPUs there are, a session on one of them, its stream and its memory.

Everything runs in the device's primary context, the one that torch, CuPy and `pycuda.autoprimaryctx` use as well.
"""

from __future__ import annotations

import ctypes
import importlib
import operator
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import BackendError

_INSTALL = "pip install 'cuda-core[cu13]', on CUDA 12 (JetPack 6 among it) 'cuda-core[cu12]'"
# cuMemAlloc's own alignment. An empty array gets that much, as TensorRT wants an address for it too.
_SMALLEST = 256


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU: its index for CUDA, its name, its compute capability ("8.7") and its memory in bytes."""

    index: int
    name: str
    compute_capability: str
    memory: int


@dataclass(frozen=True)
class DeviceOptions:
    """Where and how a GPU backend runs.

    Attributes:
        device: index of the GPU, as CUDA counts them.
        stream: the stream to run on, None for one of samrt's own. An address as an integer, any object with
            `__cuda_stream__`, or a stream of PyCUDA (`handle`), torch (`cuda_stream`) or CuPy (`ptr`). It must belong
            to the device's primary context and live as long as the session.
        cuda_graphs: capture the engines' work into CUDA graphs where the runtime allows it.
    """

    device: int = 0
    stream: object | None = None
    cuda_graphs: bool = True


def find_gpus() -> list[Gpu]:
    """The GPUs that CUDA offers; empty where there is none, no driver, or no `cuda-core`. Creates no context."""
    try:
        driver = _driver()
        check(driver.cuInit(0), "cuInit")
        return [_gpu(driver, index) for index in range(check(driver.cuDeviceGetCount(), "cuDeviceGetCount"))]
    except Exception:  # whatever is wrong with the driver or its bindings, nothing can run there
        return []


class DeviceSession:
    """One stream on one GPU, and what is allocated there. `lock` is held by whoever puts work on the stream.

    Close it, or use it in a `with` block, after the engines that run in it. Arrays that they returned may outlive it.

    Attributes:
        gpu: the GPU.
        options: what the session was opened with.
        stream: address of the stream; 1 and 2 are CUDA's legacy and per-thread default streams.
    """

    def __init__(self, options: DeviceOptions | None = None) -> None:
        """Open a session and, where the caller handed in none, a stream.

        Raises:
            BackendError: there is no driver, no `cuda-core` or no such GPU, or the stream is of another context.
        """
        self.options = options or DeviceOptions()
        self.gpu = _find_gpu(self.options.device)
        self.lock = threading.RLock()
        self._closed = False
        self._private: Any = None
        with self.current() as device:
            wanted = self.options.stream
            self._stream: Any = _new_stream(device) if wanted is None else _borrowed_stream(wanted, self.gpu.index)
        self.stream = int(self._stream.handle)

    @contextmanager
    def current(self) -> Iterator[Any]:
        """Make the device's primary context current in this thread, then whichever was before; yields the device."""
        with primary_context(self.gpu.index) as device:
            yield device

    @property
    def capture_stream(self) -> Any:
        """A stream of the session's own to capture graphs on: what others put on the caller's must not get in."""
        self.check_open()
        if self._private is None:
            with self.current() as device:
                self._private = _new_stream(device)
        return self._private

    def check_open(self) -> None:
        """Raises BackendError where the session is closed."""
        if self._closed:
            raise BackendError("this model is closed; load the bundle again")

    def allocate(self, size: int) -> Memory:
        """Device memory of `size` bytes, 256-byte aligned and uninitialised; `size` may be 0.

        Raises:
            BackendError: there is not enough.
        """
        self.check_open()
        return Memory(self.gpu.index, size)

    def allocate_pinned(self, size: int) -> Memory:
        """Page-locked host memory of `size` bytes, for copies that do not stop the CPU."""
        self.check_open()
        return Memory(self.gpu.index, size, pinned=True)

    def copy(self, target: int, source: int, size: int) -> None:
        """Put a copy of `size` bytes between two addresses, device or pinned host, on the stream; within `current`."""
        if size:
            check(_driver().cuMemcpyAsync(target, source, size, self._stream.handle), "a copy")

    def wait_for_default_stream(self) -> None:
        """Put all further work behind what is on CUDA's legacy default stream now; within `current`."""
        self._stream.wait(_core().LEGACY_DEFAULT_STREAM)

    def synchronize(self) -> None:
        """Wait until all work on the stream is done; within `current`. A closed session has waited already.

        Raises:
            BackendError: some of it failed.
        """
        if self._closed:
            return
        check(_driver().cuStreamSynchronize(self._stream.handle), "work on the GPU")

    def close(self) -> None:
        """Wait for the stream, then destroy it unless it is the caller's. May be called again."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
            with self.current():
                _driver().cuStreamSynchronize(self._stream.handle)
                if self._private is not None:
                    self._private.close()
                if self.options.stream is None:
                    self._stream.close()

    def __enter__(self) -> DeviceSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Memory:
    """A block of device or pinned host memory, freed once: by `close` or with the last reference."""

    def __init__(self, device: int, size: int, *, pinned: bool = False) -> None:
        self.device = device
        self.size = size
        driver = _driver()
        bytes_ = max(size, _SMALLEST)
        with primary_context(device):
            if pinned:
                self.ptr = int(check(driver.cuMemAllocHost(bytes_), f"allocating {bytes_:,} bytes of pinned memory"))
            else:
                self.ptr = int(check(driver.cuMemAlloc(bytes_), f"allocating {bytes_:,} bytes of GPU memory"))
        self._free = weakref.finalize(
            self, _free, driver.cuMemFreeHost if pinned else driver.cuMemFree, device, self.ptr
        )

    def host_view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Pinned memory from its start as an array. It must not be used after `close`."""
        block = (ctypes.c_char * max(self.size, _SMALLEST)).from_address(self.ptr)
        view: NDArray[Any] = np.ndarray(shape, dtype, buffer=memoryview(block))
        return view

    def close(self) -> None:
        """Give the memory back. May be called again."""
        self._free()


@contextmanager
def primary_context(device: int) -> Iterator[Any]:
    """Make the device's primary context current in this thread, then whichever was before; yields `cuda.core.Device`.

    Raises:
        BackendError: the context cannot be created.
    """
    driver = _driver()
    before = check(driver.cuCtxGetCurrent(), "cuCtxGetCurrent")
    try:
        of_thread = _core().Device(device)
        of_thread.set_current()
    except Exception as error:  # cuda.core has errors of its own, some of them plain Exceptions
        raise BackendError(f"GPU {device} cannot be used: {error}; check it with nvidia-smi") from error
    try:
        yield of_thread
    finally:
        driver.cuCtxSetCurrent(before)


def context_of_pointer(ptr: int) -> int | None:
    """Handle of the context that a device address belongs to; None where it belongs to none, as pooled memory."""
    driver = _driver()
    error, context = driver.cuPointerGetAttribute(driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_CONTEXT, ptr)
    return (int(context) or None) if int(error) == 0 and context is not None else None


def current_context() -> int:
    """Handle of this thread's current context, 0 for none."""
    return int(check(_driver().cuCtxGetCurrent(), "cuCtxGetCurrent"))


def check(result: tuple[Any, ...], what: str) -> Any:
    """The value in what a driver call returned.

    Raises:
        BackendError: the call failed; `what` names it.
    """
    error, *values = result
    if int(error) == 0:
        return values[0] if values else None
    name = str(getattr(error, "name", error))
    raise BackendError(f"CUDA: {what} failed with {name}; {_remedy(name)}")


def _remedy(name: str) -> str:
    if "OUT_OF_MEMORY" in name:
        return (
            "close other models or programs on this GPU, or build the engines with smaller --max-batch or --max-prompts"
        )
    if "NO_DEVICE" in name:
        return "check the GPU with nvidia-smi, and that CUDA_VISIBLE_DEVICES does not hide it"
    if "INSUFFICIENT_DRIVER" in name or "SYSTEM_DRIVER_MISMATCH" in name:
        return "update the NVIDIA driver"
    return "the GPU may need this process to start again; check it with nvidia-smi"


def _find_gpu(index: int) -> Gpu:
    driver = _driver()
    _core()
    try:
        check(driver.cuInit(0), "cuInit")
    except RuntimeError as error:  # BackendError, and what the bindings raise where libcuda is absent
        raise BackendError(
            f"CUDA cannot start ({error}); install an NVIDIA driver, or load with backend='onnxruntime'"
        ) from error
    count = check(driver.cuDeviceGetCount(), "cuDeviceGetCount")
    number = _integer(index)
    if number is None or not 0 <= number < count:
        raise BackendError(f"there is no GPU {index!r}: CUDA sees {count}, counted from 0; choose one of them")
    return _gpu(driver, number)


def _gpu(driver: Any, index: int) -> Gpu:
    device = check(driver.cuDeviceGet(index), "cuDeviceGet")
    name = check(driver.cuDeviceGetName(256, device), "cuDeviceGetName")
    major, minor = (
        check(driver.cuDeviceGetAttribute(attribute, device), "cuDeviceGetAttribute")
        for attribute in (
            driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    memory = check(driver.cuDeviceTotalMem(device), "cuDeviceTotalMem")
    return Gpu(index, name.split(b"\0")[0].decode(errors="replace").strip(), f"{major}.{minor}", int(memory))


def _integer(value: object) -> int | None:
    """An integer of Python or NumPy as int; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _new_stream(device: Any) -> Any:
    try:
        return device.create_stream()
    except Exception as error:  # cuda.core's CUDAError is a plain Exception
        raise BackendError(f"CUDA: making a stream failed ({error}); {_remedy(str(error))}") from error


def _borrowed_stream(stream: object, device: int) -> Any:
    """The caller's stream as `cuda.core.Stream`; called in the device's primary context."""
    core, driver = _core(), _driver()
    handle = _handle_of(stream)
    # 0 is the legacy default stream too, but an array's producer may take it for "no stream".
    if handle in (0, 1):
        return core.LEGACY_DEFAULT_STREAM
    if handle == 2:
        return core.PER_THREAD_DEFAULT_STREAM
    context = check(driver.cuStreamGetCtx(driver.CUstream(handle)), "asking for the stream's context")
    if int(context) != current_context():
        raise BackendError(
            f"the stream belongs to a CUDA context other than the primary one of GPU {device}; choose the stream's own "
            "GPU as `device`, or with PyCUDA, import pycuda.autoprimaryctx instead of pycuda.autoinit"
        )
    return core.Stream.from_handle(handle)


def _handle_of(stream: object) -> int:
    try:
        handle = _address_of(stream)
    except Exception as error:  # whatever an object's own attributes raise
        raise BackendError(f"{type(stream).__name__} names no CUDA stream ({error}); hand in its address") from error
    if handle is None:
        raise BackendError(
            f"{type(stream).__name__} is not a CUDA stream; hand in its address as int, or an object with "
            "__cuda_stream__"
        )
    if not 0 <= handle < 1 << 64:
        raise BackendError(f"{handle} is not the address of a CUDA stream; hand in what the stream's owner calls it")
    return handle


def _address_of(stream: object) -> int | None:
    number = _integer(stream)
    if number is not None:
        return number
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        return int(protocol()[1])
    for name in ("handle", "cuda_stream", "ptr"):  # PyCUDA, torch, CuPy
        value = getattr(stream, name, None)
        if value is not None:
            return int(value)
    return None


def _free(function: Callable[[int], Any], device: int, ptr: int) -> None:
    # Runs in garbage collection and at exit, where the context may be gone and its memory with it.
    with suppress(BackendError), primary_context(device):
        function(ptr)


def _driver() -> Any:
    return _import("cuda.bindings.driver")


def _core() -> Any:
    return _import("cuda.core")


def _import(name: str) -> Any:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise BackendError(f"CUDA's Python bindings cannot be imported ({error}); install them: {_INSTALL}") from error
    if name == "cuda.core" and not hasattr(module, "Device"):
        raise BackendError(f"cuda-core {module.__version__} is too old, samrt needs 1.0.1 or newer; {_INSTALL}")
    return module
