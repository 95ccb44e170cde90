"""Memory that is not freed after 1,000 cycles of load, use, close."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any

import bundles
import numpy as np
from driver import Driver
from work import NotHereError, Work, WrongResultError

from phases import engines

_LOADS, _SMOKE_LOADS = 1000, 12
_WARM_UP = 0.05  # of the loads, before memory is looked at: caches and pools fill
# For all loads together. The allocators' own variation is below these bounds, one leaked buffer of the small model far
# above.
_MOST_ON_DEVICE, _MOST_ON_HOST = 16 << 20, 64 << 20
_MARGIN_S = 10


def run(work: Work) -> None:
    usable = engines.usable(work, "small")
    if not usable and not work.smoke:
        raise NotHereError("no engine was built and found correct; see the phases tensorrt and engines")
    leaking = []
    for backend, lowering in [("onnxruntime", "augmented")] if work.smoke else usable[:1]:
        bundle = bundles.path_of(work.folder, "small", lowering)
        found = _load_often(work, bundle, backend, None if work.smoke else Driver())
        work.record(f"{backend} {lowering}", value=found)
        if found["host_growth_bytes"] > _MOST_ON_HOST or found.get("device_growth_bytes", 0) > _MOST_ON_DEVICE:
            leaking.append(f"{backend} {lowering}")
    if leaking:
        raise WrongResultError(f"memory was not freed: {', '.join(leaking)}")


def _load_often(work: Work, bundle: Path, backend: str, driver: Driver | None) -> dict[str, Any]:
    import samrt

    loads = _SMOKE_LOADS if work.smoke else _LOADS
    photo = np.zeros((64, 96, 3), np.uint8)
    began = time.monotonic()
    before: dict[str, int] = {}
    done = 0
    for done in range(1, loads + 1):
        with samrt.load(bundle, backend=backend) as model:
            model.predict(model.encode(photo), point_coords=[[10, 10]], point_labels=[1])
        if done == max(1, int(_WARM_UP * loads)):
            before = _used(driver)
        if work.seconds_left < _MARGIN_S:
            break
    after = _used(driver)
    growth = {f"{place}_growth_bytes": after[place] - before.get(place, 0) for place in after}
    return {"loads": done, "of": loads, "seconds": round(time.monotonic() - began, 1), **growth}


def _used(driver: Driver | None) -> dict[str, int]:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    used = {"host": pages * os.sysconf("SC_PAGE_SIZE")}
    if driver is not None:
        used["device"] = -driver.free_memory()
    return used
