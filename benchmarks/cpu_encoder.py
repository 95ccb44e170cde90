"""Image encoder on the CPU, side by side: our ViT-B bundle, Meta's torch module, and its plain ONNX export in ONNX
Runtime and OpenVINO. All in float32 on all cores; the weights are seeded, not trained, which time does not depend on.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import models
import numpy as np
import side_by_side

from samrt.backends.importing import import_onnxruntime


def samrt_bundle(cache: Path) -> side_by_side.Call:
    from samrt.backends.session import open_session
    from samrt.bundle.folder import open_bundle

    engine = open_session(open_bundle(cache / models.BUNDLE), "onnxruntime").encoder
    image = models.image_input()
    return lambda: engine.run({"image": image})["image_embeddings"]


def meta_torch(cache: Path) -> side_by_side.Call:
    import torch

    encoder = models.meta_vit_b(cache).image_encoder
    image = torch.from_numpy(models.image_input())

    def call() -> Any:
        with torch.inference_mode():
            return encoder(image).numpy()

    return call


def meta_onnxruntime(cache: Path, memory_pattern: bool = True) -> side_by_side.Call:
    onnxruntime = import_onnxruntime()

    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = memory_pattern
    path = str(cache / models.META_ENCODER)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    image = models.image_input()
    return lambda: session.run(None, {name: image})[0]


def meta_openvino(cache: Path) -> side_by_side.Call:
    # It sends events when OpenVINO is imported, which imports as well without it.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    # The hint keeps it in float32 on CPUs where it would choose bfloat16.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(cache / models.META_ENCODER), "CPU", options)
    image = models.image_input()
    return lambda: np.asarray(compiled(image)[0])


CONTENDERS = {
    "samrt": samrt_bundle,
    "Meta, torch eager": meta_torch,
    "Meta's plain ONNX, ONNX Runtime": meta_onnxruntime,
    # What ours gains by the session option alone, which any graph could have.
    "the same without memory pattern": partial(meta_onnxruntime, memory_pattern=False),
    "Meta's plain ONNX, OpenVINO": meta_openvino,
}

if __name__ == "__main__":
    side_by_side.main(__file__, CONTENDERS, models.prepare)
