"""Loading a thousand times leaves no GPU memory behind."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
from small_graphs import build, doubling

from samrt.backends.tensorrt.engine import TensorRtEngine
from samrt.device.driver import check
from samrt.device.session import DeviceSession
from samrt.engines.flavours import Flavour
from samrt.engines.profiles import BuildLimits

LOADS = 1000
# What CUDA and TensorRT set up once is set up by then.
WARM_UP = 50
# Less than 50 KiB a load; other programs on the GPU may take some meanwhile.
ALLOWED = 48 << 20


def _free() -> int:
    from cuda.bindings import driver

    with DeviceSession() as session, session.current():
        error, free, _ = driver.cuMemGetInfo()
        check((error,), "cuMemGetInfo")
        return int(free)


def test_a_thousand_loads_leave_no_memory_behind(flavour: Flavour, tmp_path: Path) -> None:
    plan, graph = build(flavour, doubling(tmp_path), BuildLimits(max_batch=64))
    x = np.ones((64, 1024), np.float32)
    before = 0
    for load in range(WARM_UP + LOADS):
        if load == WARM_UP:
            gc.collect()
            before = _free()
        with DeviceSession() as session:
            engine = TensorRtEngine(plan, graph, flavour, session)
            # Enough for a graph to be captured and replayed, now and then.
            for _ in range(3 if load % 10 == 0 else 1):
                engine.run({"x": x}, on_device=["y"])
            engine.close()
    gc.collect()
    lost = before - _free()
    assert lost < ALLOWED, f"{lost:,} bytes of GPU memory are gone after {LOADS} loads"
