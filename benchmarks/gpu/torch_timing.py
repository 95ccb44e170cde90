"""Timing a call that puts work on torch's current stream: as it is called, and replayed from a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from driver import Driver
from timing import Clock


def measure(call: Callable[[], Any], driver: Driver | None, seconds: float) -> dict[str, Any]:
    """Times within about twice `seconds`; without a GPU, on the wall alone.

    "ms" is the lower of the two medians on the GPU: in a graph no operation waits for Python, and what is one kernel
    needs no graph.
    """
    if driver is None:
        return {"as called": Clock(None).measure(call, seconds)}
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    clock = Clock(driver, stream.cuda_stream)
    with torch.cuda.stream(stream):
        found: dict[str, Any] = {"as called": clock.measure(call, seconds)}
        best = found["as called"]["gpu_ms"]["median"]
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                call()
            found["in a CUDA graph"] = clock.measure(graph.replay, seconds)
            best = min(best, found["in a CUDA graph"]["gpu_ms"]["median"])
        except RuntimeError as error:
            found["in a CUDA graph"] = {"error": str(error)[:400]}
    return {"ms": best, **found}
