"""A session on one GPU: its stream, and what is allocated there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from samrt.device.driver import check, check_process, load_core, load_driver, primary_context
from samrt.device.gpus import find_gpu
from samrt.device.memory import Memory
from samrt.device.streams import borrow_stream, new_stream
from samrt.errors import BackendError
from samrt.processes import ForkSafeLock, keep_while_alive, this_process


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


class DeviceSession:
    """One stream on one GPU, and what is allocated there.

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
        self.gpu = find_gpu(self.options.device)
        self._process = this_process()
        self._lock = ForkSafeLock()
        self._closed = False
        self._private: Any = None
        with self.current() as device:
            wanted = self.options.stream
            self._stream: Any = new_stream(device) if wanted is None else borrow_stream(wanted, self.gpu.index)
        if wanted is None:
            keep_while_alive(self, self._stream)
        self.stream = int(self._stream.handle)

    @property
    def lock(self) -> threading.RLock:
        """Held by whoever puts work on the stream."""
        return self._lock.here()

    @property
    def is_inherited(self) -> bool:
        """Whether this is a forked child of the process that opened the session: nothing of it may be touched."""
        return self._process != this_process()

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
                self._private = new_stream(device)
                keep_while_alive(self, self._private)
        return self._private

    def check_open(self) -> None:
        """Raises BackendError where the session is closed, or of the process that this one was forked from."""
        check_process(self._process, "this model was loaded on a GPU")
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
            check(load_driver().cuMemcpyAsync(target, source, size, self._stream.handle), "a copy")

    def wait_for_default_stream(self) -> None:
        """Put all further work behind what is on CUDA's legacy default stream now; within `current`."""
        self._stream.wait(load_core().LEGACY_DEFAULT_STREAM)

    def synchronize(self) -> None:
        """Wait until all work on the stream is done; within `current`. A closed session has waited already.

        Raises:
            BackendError: some of it failed.
        """
        if self._closed:
            return
        check(load_driver().cuStreamSynchronize(self._stream.handle), "work on the GPU")

    def close(self) -> None:
        """Wait for the stream, then destroy it unless it is the caller's. May be called again."""
        with self.lock:
            if self._closed or self.is_inherited:
                return
            self._closed = True
            with self.current():
                load_driver().cuStreamSynchronize(self._stream.handle)
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
