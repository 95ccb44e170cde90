"""The CUDA layer on the driver of `libcuda.c`; see `outside.py`."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from cuda.bindings import driver
from hostcuda.inside import alive, counts, current, fail_streams, fail_waits, limit_memory, other_context

from samrt.device.gpus import Gpu, find_gpus
from samrt.device.session import DeviceOptions, DeviceSession
from samrt.errors import BackendError


def test_gpus_are_found_without_a_context() -> None:
    assert find_gpus()[1] == Gpu(1, "Host memory 1", "8.7", 1 << 30)
    assert current() == 0


@pytest.mark.parametrize("device", [2, -1, True, "0"])
def test_a_gpu_that_is_not_there_is_refused(device: int) -> None:
    with pytest.raises(BackendError, match="CUDA sees 2, counted from 0"):
        DeviceSession(DeviceOptions(device=device))


def test_the_context_that_was_current_comes_back() -> None:
    with DeviceSession() as session:
        assert current() == 0
        driver.cuCtxPushCurrent(driver.CUcontext(other_context()))
        try:
            with session.current():
                assert current() not in (0, other_context())
                session.allocate(10).close()
            assert current() == other_context()
        finally:
            driver.cuCtxPopCurrent()


@pytest.mark.parametrize("index", [1, np.int64(1)])
def test_sessions_are_on_the_device_that_was_asked_for(index: int) -> None:
    with DeviceSession(DeviceOptions(device=index)) as session, session.current():
        _, device = driver.cuCtxGetDevice()
        assert int(device) == 1
        assert type(session.gpu.index) is int


def test_a_stream_that_cannot_be_made_is_an_error() -> None:
    before = alive()
    fail_streams(1)
    with pytest.raises(BackendError, match="making a stream failed"):
        DeviceSession()
    with DeviceSession() as session:
        fail_streams(1)
        with pytest.raises(BackendError, match="making a stream failed"):
            _ = session.capture_stream
    assert alive() == before


def test_closing_gives_back_everything() -> None:
    before = alive()
    session = DeviceSession()
    assert session.capture_stream is session.capture_stream
    memories = [session.allocate(1000), session.allocate(0), session.allocate_pinned(1000)]
    assert alive()["streams"] == before["streams"] + 2
    assert all(memory.ptr % 256 == 0 and memory.ptr for memory in memories)
    session.close()
    session.close()
    memories[0].close()
    memories[0].close()
    del memories
    gc.collect()
    assert alive() == before
    with pytest.raises(BackendError, match="closed"):
        session.allocate(1)


def test_a_closed_session_does_not_touch_its_stream() -> None:
    with DeviceSession() as session:
        pass
    fail_waits(1)
    with session.current():
        session.synchronize()
    fail_waits(0)


def test_memory_is_freed_from_a_thread_without_a_context() -> None:
    before = alive()
    with DeviceSession() as session:
        memory = [session.allocate(1000)]
        thread = threading.Thread(target=memory.clear)
        thread.start()
        thread.join()
    assert alive() == before


def test_running_out_of_memory_says_how_much_was_asked_for() -> None:
    with DeviceSession() as session:
        limit_memory(counts()["bytes"] + 1000)
        try:
            with pytest.raises(BackendError, match=r"2,000 bytes.*OUT_OF_MEMORY; close other models"):
                session.allocate(2000)
        finally:
            limit_memory(1 << 30)


def test_copies_are_in_order_on_the_stream() -> None:
    with DeviceSession() as session:
        first, second = session.allocate_pinned(24), session.allocate_pinned(24)
        on_device = session.allocate(24)
        values, result = (memory.host_view((2, 3), np.dtype("float32")) for memory in (first, second))
        values[...] = np.arange(6).reshape(2, 3)
        with session.current():
            session.copy(on_device.ptr, first.ptr, 24)
            session.copy(second.ptr, on_device.ptr, 24)
            assert np.isnan(result).all(), "the driver is not lazy: the checks would not see a missing wait"
            session.synchronize()
        np.testing.assert_array_equal(result, values)
        assert first.host_view((0, 2), np.dtype("int32")).shape == (0, 2)


def _stream() -> int:
    with DeviceSession() as session, session.current():
        return int(driver.cuStreamCreate(1)[1])


class _WithProtocol:
    def __init__(self, handle: int) -> None:
        self.__cuda_stream__ = lambda: (0, handle)


class _Named:
    def __init__(self, name: str, handle: object) -> None:
        setattr(self, name, handle)


@pytest.mark.parametrize("how", ["int", "numpy", "protocol", "handle", "cuda_stream", "ptr"])
def test_the_callers_stream_is_used_and_left_open(how: str) -> None:
    handle = _stream()
    before = alive()
    plain = {"int": handle, "numpy": np.int64(handle), "protocol": _WithProtocol(handle)}
    wrapped = plain[how] if how in plain else _Named(how, handle)
    with DeviceSession(DeviceOptions(stream=wrapped)) as session:
        assert session.stream == handle
        assert alive() == before
    assert alive() == before
    driver.cuStreamDestroy(driver.CUstream(handle))


@pytest.mark.parametrize(("given", "used"), [(0, 1), (1, 1), (2, 2)])
def test_default_streams_are_taken(given: int, used: int) -> None:
    for _ in range(2):  # closing must leave it open
        with DeviceSession(DeviceOptions(stream=given)) as session, session.current():
            assert session.stream == used
            session.synchronize()


def test_a_stream_of_another_context_is_refused() -> None:
    driver.cuCtxPushCurrent(driver.CUcontext(other_context()))
    handle = driver.cuStreamCreate(1)[1]
    driver.cuCtxPopCurrent()
    with pytest.raises(BackendError, match=r"choose the stream's own GPU as `device`, or .*pycuda\.autoprimaryctx"):
        DeviceSession(DeviceOptions(stream=int(handle)))
    driver.cuStreamDestroy(handle)


class _Closed:
    @property
    def handle(self) -> int:
        raise RuntimeError("this stream is closed")


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ("0", "str is not a CUDA stream"),
        (True, "bool is not a CUDA stream"),
        (0.0, "float is not a CUDA stream"),
        (-1, "-1 is not the address of a CUDA stream"),
        (1 << 70, f"{1 << 70} is not the address"),
        (_Named("ptr", -1), "-1 is not the address"),
        (_Named("handle", "here"), "_Named names no CUDA stream"),
        (_Closed(), "_Closed names no CUDA stream .this stream is closed"),
    ],
)
def test_what_is_no_stream_is_refused(stream: object, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        DeviceSession(DeviceOptions(stream=stream))
