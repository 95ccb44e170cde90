"""From a photograph in memory to a mask of its size, as a user calls it: `encode`, then `predict` with one box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bundles
import contenders
import models
import numpy as np
from timing import Clock
from work import Work

_SIZE = (1500, 2250)
_CPU_SECONDS, _SMOKE_SECONDS = 12.0, 1.0


def run(work: Work) -> None:
    for name, flavour, lowering, graphs in [] if work.smoke else contenders.names(work):
        bundle = bundles.path_of(work.folder, contenders.MODEL, lowering)
        work.attempt("times", name, call=lambda args=(bundle, flavour, graphs): _times(*args))
    # For scale.
    bundle = bundles.path_of(work.folder, models.chosen(work.smoke)[-1], "augmented")
    seconds = _SMOKE_SECONDS if work.smoke else _CPU_SECONDS
    work.attempt("times", "onnxruntime on the CPU", call=lambda: _times(bundle, "onnxruntime", False, seconds))


def _times(bundle: Path, backend: str, graphs: bool, seconds: float = 3.0) -> dict[str, Any]:
    import samrt
    from samrt.device.session import DeviceOptions

    height, width = _SIZE
    photo = np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)
    box = [width // 4, height // 4, 3 * width // 4, 3 * height // 4]
    with samrt.load(bundle, backend=backend, device_options=DeviceOptions(cuda_graphs=graphs)) as model:
        embedding = model.encode(photo)
        clock = Clock(None)

        def predict(of: Any) -> None:
            model.predict(of, box=box, multimask_output=False)

        steps = {
            "encode": lambda: model.encode(photo),
            "predict": lambda: predict(embedding),
            "both": lambda: predict(model.encode(photo)),
        }
        times = {name: clock.measure(step, seconds / 3) for name, step in steps.items()}
        return {"ran": str(model.choice), "image": [height, width], **times}
