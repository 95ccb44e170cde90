"""The highest rates of this device: half precision matrix products and copies."""

from __future__ import annotations

from typing import Any

from driver import Driver
from timing import Clock
from work import NotHereError, Work

_COPY_BYTES = 1 << 30
_SIDE = 8192


def run(work: Work) -> None:
    if work.smoke:
        raise NotHereError("the rates are measured on a GPU only")
    driver = Driver()
    # Each is recorded at once: the second, which waits for torch, may be cut off.
    for kind, rate, measure in (
        ("bandwidth", "bytes_per_s", _bandwidth),
        ("matmul", "half_operations_per_s", _matmul),
    ):
        measured = work.attempt(kind, call=lambda measure=measure: measure(driver))
        if measured is not None:
            work.record("rates", rate, value=measured[rate])


def _bandwidth(driver: Driver) -> dict[str, Any]:
    stream = driver.new_stream()
    size = min(_COPY_BYTES, driver.free_memory() // 4)
    with driver.memory(size) as source, driver.memory(size) as target:
        measured = Clock(driver, stream).measure(lambda: driver.copy(target, source, size, stream), 2.0)
    # Each byte is read once and written once.
    return {**measured, "copied_bytes": size, "bytes_per_s": 2e3 * size / measured["gpu_ms"]["min"]}


def _matmul(driver: Driver) -> dict[str, Any]:
    import torch

    a, b = (torch.randn(_SIDE, _SIDE, device="cuda", dtype=torch.float16) for _ in range(2))
    out = torch.empty_like(a)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        measured = Clock(driver, stream.cuda_stream).measure(lambda: torch.mm(a, b, out=out), 3.0)
    return {**measured, "side": _SIDE, "half_operations_per_s": 2e3 * _SIDE**3 / measured["gpu_ms"]["min"]}
