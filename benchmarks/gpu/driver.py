"""The few calls of the CUDA driver that measuring needs, through ctypes: they work wherever a driver is.

Everything happens in the device's primary context, the one that torch, TensorRT and samrt use.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_float, c_int, c_size_t, c_uint64, c_void_p
from typing import Any

_LIBRARY = "libcuda.so.1"
_COMPUTE_MAJOR, _COMPUTE_MINOR, _L2_BYTES, _MULTIPROCESSORS = 75, 76, 38, 16
_CLOCK_KHZ, _MEMORY_CLOCK_KHZ, _MEMORY_BUS_BITS, _INTEGRATED = 13, 36, 37, 18
_SHARED_BYTES = 97  # that a block may ask for
_ATTRIBUTES = {
    "multiprocessors": _MULTIPROCESSORS,
    "l2_bytes": _L2_BYTES,
    "clock_khz": _CLOCK_KHZ,
    "memory_clock_khz": _MEMORY_CLOCK_KHZ,
    "memory_bus_bits": _MEMORY_BUS_BITS,
    "integrated": _INTEGRATED,
    "shared_bytes_per_block": _SHARED_BYTES,
}


class DriverError(Exception):
    """A call of the driver failed."""


def no_gpu_reason() -> str:
    """Why no GPU can be used here; empty where one can."""
    try:
        library = ctypes.CDLL(_LIBRARY)
        _call(library, "cuInit", 0)
        count = c_int(0)
        _call(library, "cuDeviceGetCount", byref(count))
    except OSError:
        return "no NVIDIA driver"
    except DriverError as error:
        return str(error)
    return "" if count.value else "the driver finds no device"


def device_name() -> str:
    """Device 0's, without a context on it. Raises as `Driver` does."""
    library, device, name = ctypes.CDLL(_LIBRARY), c_int(0), ctypes.create_string_buffer(128)
    _call(library, "cuInit", 0)
    _call(library, "cuDeviceGet", byref(device), 0)
    _call(library, "cuDeviceGetName", name, len(name), device)
    return name.value.decode(errors="replace")


class Driver:
    """Device 0, its primary context current in this thread until the process ends."""

    def __init__(self) -> None:
        """Raises OSError without a driver, DriverError without a device."""
        self._library = ctypes.CDLL(_LIBRARY)
        self._call("cuInit", 0)
        self._device = c_int(0)
        self._call("cuDeviceGet", byref(self._device), 0)
        context = c_void_p()
        self._call("cuDevicePrimaryCtxRetain", byref(context), self._device)
        self._call("cuCtxSetCurrent", context)

    def describe(self) -> dict[str, Any]:
        """Name, compute capability, memory, and what the driver says about sizes and clocks."""
        total = c_size_t()
        self._call("cuDeviceTotalMem_v2", byref(total), self._device)
        version = c_int()
        self._call("cuDriverGetVersion", byref(version))
        return {
            "name": device_name(),
            "compute_capability": f"{self._attribute(_COMPUTE_MAJOR)}.{self._attribute(_COMPUTE_MINOR)}",
            "memory_bytes": total.value,
            "driver_supports_cuda": f"{version.value // 1000}.{version.value % 1000 // 10}",
            **{key: self._attribute(number) for key, number in _ATTRIBUTES.items()},
        }

    @property
    def l2_bytes(self) -> int:
        return self._attribute(_L2_BYTES)

    @property
    def shared_bytes(self) -> int:
        """The most shared memory that a block may ask for."""
        return self._attribute(_SHARED_BYTES)

    def free_memory(self) -> int:
        """Bytes of device memory that are free now, for all processes."""
        free, total = c_size_t(), c_size_t()
        self._call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value

    @contextmanager
    def memory(self, size: int) -> Iterator[int]:
        """The address of `size` bytes of device memory, until the end of the block."""
        address = self.allocate(size)
        try:
            yield address
        finally:
            self.release(address)

    def allocate(self, size: int) -> int:
        """The address of `size` bytes of device memory."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), c_size_t(size))
        return address.value

    def release(self, address: int) -> None:
        """Give back memory, once the device is done with it."""
        self._call("cuMemFree_v2", c_uint64(address))

    def upload(self, address: int, data: bytes) -> None:
        self._call("cuMemcpyHtoD_v2", c_uint64(address), data, c_size_t(len(data)))

    def download(self, address: int, size: int) -> bytes:
        data = ctypes.create_string_buffer(size)
        self._call("cuMemcpyDtoH_v2", data, c_uint64(address), c_size_t(size))
        return data.raw

    def fill(self, address: int, size: int, stream: int) -> None:
        """Write `size` bytes, in the stream's order."""
        self._call("cuMemsetD8Async", c_uint64(address), ctypes.c_ubyte(0), c_size_t(size), c_void_p(stream))

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """Copy on the device, in the stream's order."""
        self._call("cuMemcpyDtoDAsync_v2", c_uint64(target), c_uint64(source), c_size_t(size), c_void_p(stream))

    def run_ptx(self, source: str, kernel: str, threads: int, address: int) -> None:
        """Compile PTX and run one block of a kernel whose only parameter is an address; waits for it."""
        module, function, argument = c_void_p(), c_void_p(), c_uint64(address)
        self._call("cuModuleLoadData", byref(module), source.encode())
        self._call("cuModuleGetFunction", byref(function), module, kernel.encode())
        arguments = (c_void_p * 1)(ctypes.addressof(argument))
        self._call("cuLaunchKernel", function, 1, 1, 1, threads, 1, 1, 0, None, arguments, None)
        self.synchronize()

    def new_stream(self) -> int:
        stream = c_void_p()
        self._call("cuStreamCreate", byref(stream), 1)  # not ordered with the default stream
        assert stream.value is not None
        return stream.value

    def wait(self, stream: int) -> None:
        self._call("cuStreamSynchronize", c_void_p(stream))

    def synchronize(self) -> None:
        """Wait for everything on the device. Raises DriverError where the context is unusable."""
        self._call("cuCtxSynchronize")

    def new_event(self) -> int:
        event = c_void_p()
        self._call("cuEventCreate", byref(event), 0)
        assert event.value is not None
        return event.value

    def mark(self, event: int, stream: int) -> None:
        self._call("cuEventRecord", c_void_p(event), c_void_p(stream))

    def milliseconds(self, start: int, end: int) -> float:
        """Between two marks; waits for the second."""
        self._call("cuEventSynchronize", c_void_p(end))
        elapsed = c_float()
        self._call("cuEventElapsedTime", byref(elapsed), c_void_p(start), c_void_p(end))
        return elapsed.value

    def _attribute(self, number: int) -> int:
        value = c_int()
        self._call("cuDeviceGetAttribute", byref(value), number, self._device)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        _call(self._library, name, *arguments)


def _call(library: Any, name: str, *arguments: Any) -> None:
    code = getattr(library, name)(*arguments)
    if code:
        text = ctypes.c_char_p()
        library.cuGetErrorName(code, byref(text))
        raise DriverError(f"{name}: {(text.value or b'unknown error').decode()} ({code})")
