"""Timing one call many times: on the GPU between two events with a cold L2 cache, and on the wall with a warm one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from driver import Driver

_WARM_UP, _FEWEST, _MOST = 3, 10, 200
_LEAST_FLUSH = 256 << 20


class Clock:
    """Times calls that enqueue their work on `stream`; without a GPU, on the wall alone."""

    def __init__(self, driver: Driver | None, stream: int = 0) -> None:
        self._driver, self._stream = driver, stream

    def measure(self, call: Callable[[], Any], seconds: float = 3.0) -> dict[str, Any]:
        """Times in milliseconds, within about `seconds` and between 10 and 200 runs after the warm-up.

        `gpu_ms`: between an event before and one after the call. Before each run a buffer of at least four times the
        L2 cache is written, in the same stream, so the call begins with a cold cache; while that runs, the host is
        already preparing the call, so the host's work counts only where it outlasts the write.
        `wall_ms`: from the call until the stream is idle, caches warm, as a caller sees it.
        """
        for _ in range(_WARM_UP):
            call()
        self._wait()
        began = time.perf_counter()
        call()
        self._wait()
        runs = max(_FEWEST, min(_MOST, int(seconds / 2 / max(time.perf_counter() - began, 1e-6))))
        result: dict[str, Any] = {"runs": runs}
        if self._driver is not None:
            result["gpu_ms"] = summary(self._on_gpu(self._driver, call, runs))
            result["l2_cache"] = "cold for gpu_ms, warm for wall_ms"
        result["wall_ms"] = summary(self._on_wall(call, runs))
        return result

    def _on_gpu(self, driver: Driver, call: Callable[[], Any], runs: int) -> list[float]:
        size = max(_LEAST_FLUSH, 4 * driver.l2_bytes)
        start, end = driver.new_event(), driver.new_event()
        times = []
        with driver.memory(size) as buffer:
            for _ in range(runs):
                driver.fill(buffer, size, self._stream)
                driver.mark(start, self._stream)
                call()
                driver.mark(end, self._stream)
                times.append(driver.milliseconds(start, end))
        return times

    def _on_wall(self, call: Callable[[], Any], runs: int) -> list[float]:
        times = []
        for _ in range(runs):
            began = time.perf_counter()
            call()
            self._wait()
            times.append((time.perf_counter() - began) * 1e3)
        return times

    def _wait(self) -> None:
        if self._driver is not None:
            self._driver.wait(self._stream)


def summary(times: Sequence[float]) -> dict[str, float]:
    """Median and spread: the shortest, the 10th and 90th percentile, the longest."""
    ordered = sorted(times)
    percentiles = statistics.quantiles(ordered, n=10, method="inclusive")
    return {
        "median": round(statistics.median(ordered), 5),
        "min": round(ordered[0], 5),
        "p10": round(percentiles[0], 5),
        "p90": round(percentiles[-1], 5),
        "max": round(ordered[-1], 5),
    }
