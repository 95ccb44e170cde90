"""What the checks need inside the process whose driver is `libcuda.c`."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from cuda.bindings import driver

from samrt.device.driver import check
from samrt.device.session import DeviceSession

_library = ctypes.CDLL("libcuda.so.1")
_library.hostcuda_counts.restype = ctypes.POINTER(ctypes.c_long)
_library.hostcuda_other_context.restype = ctypes.c_void_p

# In the order of libcuda.c.
_ALIVE = ("device", "pinned", "streams", "events", "graphs", "execs")
_NAMES = (*_ALIVE, "to_device", "to_host", "on_device", "launches", "calls", "bytes")


def counts() -> dict[str, int]:
    """What is alive, and how many copies, graph launches and host functions there have been."""
    values = _library.hostcuda_counts()
    return {name: values[index] for index, name in enumerate(_NAMES)}


def alive() -> dict[str, int]:
    """What is alive only."""
    return {name: count for name, count in counts().items() if name in (*_ALIVE, "bytes")}


def fail_captures(times: int) -> None:
    """Let the next captures fail."""
    _library.hostcuda_fail_captures(ctypes.c_long(times))


def fail_streams(times: int) -> None:
    """Let the next streams not be made."""
    _library.hostcuda_fail_streams(ctypes.c_long(times))


def fail_waits(times: int) -> None:
    """Let the next waits for a stream say that its work failed."""
    _library.hostcuda_fail_waits(ctypes.c_long(times))


def limit_memory(size: int) -> None:
    """Let allocations beyond so many bytes fail."""
    _library.hostcuda_memory_limit(ctypes.c_size_t(size))


def other_context() -> int:
    """A context of device 0 that is not its primary one."""
    return int(_library.hostcuda_other_context())


def current() -> int:
    return int(check(driver.cuCtxGetCurrent(), "cuCtxGetCurrent"))


class Foreign:
    """An array of another library in GPU memory, which it fills on a stream of its own."""

    def __init__(self, session: DeviceSession, values: Any) -> None:
        self.values = values
        self.memory = session.allocate(values.nbytes)
        with session.current():
            self.stream = check(driver.cuStreamCreate(1), "cuStreamCreate")
            # On the lazy streams of libcuda.c this is not done before somebody waits for the stream.
            driver.cuMemcpyAsync(self.memory.ptr, values.ctypes.data, values.nbytes, self.stream)

    def __del__(self) -> None:
        driver.cuStreamDestroy(self.stream)


class CaiArray(Foreign):
    """As PyCUDA's and Numba's: `__cuda_array_interface__` alone."""

    strides: tuple[int, ...] | None = None

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.values.shape,
            "typestr": self.values.dtype.str,
            "data": (self.memory.ptr, False),
            "strides": self.strides,
            "stream": int(self.stream),
            "version": 3,
        }


class PycudaArray(CaiArray):
    """As PyCUDA's: it names no stream, and its work is on the default one."""

    def __init__(self, session: DeviceSession, values: Any) -> None:
        super().__init__(session, np.full_like(values, -1))
        self.values = values
        with session.current():
            driver.cuStreamSynchronize(self.stream)
            driver.cuMemcpyAsync(self.memory.ptr, values.ctypes.data, values.nbytes, driver.CUstream(1))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**super().__cuda_array_interface__, "stream": None}


class DlpackArray(Foreign):
    """As torch's: DLPack, whose producer makes the consumer's stream wait."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self.memory.device)

    def __dlpack__(self, *, stream: int | None = None, **arguments: Any) -> Any:
        from samrt.device.array import DeviceArray

        event = check(driver.cuEventCreate(0), "cuEventCreate")
        driver.cuEventRecord(event, self.stream)
        driver.cuStreamWaitEvent(driver.CUstream(stream), event, 0)
        driver.cuEventDestroy(event)
        return DeviceArray(self.memory, self.values.shape, self.values.dtype).__dlpack__(**arguments)
