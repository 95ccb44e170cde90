"""CUDA graphs of an engine's work, one for each shape that comes again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from samrt.device.driver import check, load_driver, primary_context
from samrt.device.session import DeviceSession
from samrt.errors import BackendError
from samrt.processes import finalize_here

# Enough for somebody who adds points one by one. Each graph holds a context, whose activations all of them share.
_GRAPHS = 32
_SHAPES_REMEMBERED = 64

Key = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Captured:
    """A graph, and the execution context that it was captured from: changing that would spoil the graph."""

    graph: ExecutableGraph
    context: Any
    output_shapes: dict[str, tuple[int, ...]]


class GraphCache:
    """The most recently used graphs, by the shapes of the inputs."""

    def __init__(self) -> None:
        self._graphs: OrderedDict[Key, Captured] = OrderedDict()
        self._seen: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._graphs)

    def get(self, key: Key) -> Captured | None:
        """The graph of these shapes, if there is one."""
        if key in self._graphs:
            self._graphs.move_to_end(key)
        return self._graphs.get(key)

    def is_due(self, key: Key) -> bool:
        """Whether these shapes came before: a graph costs more than it saves for what comes once."""
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > _SHAPES_REMEMBERED:
            self._seen.popitem(last=False)
        return False

    def put(self, key: Key, captured: Captured) -> None:
        """Keep a graph; the least recently used one goes where there are too many."""
        self._graphs[key] = captured
        if len(self._graphs) > _GRAPHS:
            oldest, dropped = self._graphs.popitem(last=False)
            dropped.graph.close()
            self._seen.pop(oldest, None)

    def close(self) -> None:
        """Drop all graphs and their contexts."""
        while self._graphs:
            self._graphs.popitem()[1].graph.close()


class ExecutableGraph:
    """A captured graph, ready to be launched; destroyed by `close` or with the last reference."""

    def __init__(self, driver: Any, handle: Any, device: int) -> None:
        self._driver = driver
        self._handle = handle
        self._destroy = finalize_here(self, _destroy, driver, handle, device)

    def launch(self, stream: int) -> None:
        """Put the graph's work on a stream of the device whose context is current."""
        check(self._driver.cuGraphLaunch(self._handle, self._driver.CUstream(stream)), "launching a CUDA graph")

    def close(self) -> None:
        """Destroy the graph; none of its launches may be under way. May be called again."""
        self._destroy()


def capture(session: DeviceSession, enqueue: Callable[[int], None]) -> ExecutableGraph:
    """The graph of what `enqueue` puts on the stream whose address it is given; within `session.current`.

    By the driver's own calls, so that it is plain who destroys what where a capture fails.

    Raises what `enqueue` raises, and BackendError where CUDA refuses; nothing stays captured then.
    """
    driver = load_driver()
    stream = session.capture_stream.handle
    # Relaxed: memory that the garbage collector frees meanwhile would spoil any other capture.
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
    check(driver.cuStreamBeginCapture(stream, mode), "beginning a capture")
    try:
        enqueue(int(stream))
    except BaseException:
        _, graph = driver.cuStreamEndCapture(stream)
        if graph:
            driver.cuGraphDestroy(graph)
        raise
    graph = check(driver.cuStreamEndCapture(stream), "ending a capture")
    try:
        handle = check(driver.cuGraphInstantiate(graph, 0), "making a graph ready")
    finally:
        driver.cuGraphDestroy(graph)
    return ExecutableGraph(driver, handle, session.gpu.index)


def _destroy(driver: Any, handle: Any, device: int) -> None:
    # Runs in garbage collection and at exit, where the context may be gone and the graph with it.
    with suppress(BackendError), primary_context(device):
        driver.cuGraphExecDestroy(handle)
