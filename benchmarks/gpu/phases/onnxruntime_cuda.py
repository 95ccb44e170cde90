"""ONNX Runtime's CUDA provider on the same graphs, where this ONNX Runtime has it."""

from __future__ import annotations

from typing import Any

import bundles
import contenders
from device_input import seeded_image
from driver import Driver
from timing import Clock
from work import NotHereError, Work

from samrt.backends.importing import import_onnxruntime

_PROVIDER = "CUDAExecutionProvider"


def run(work: Work) -> None:
    onnxruntime = import_onnxruntime()

    if work.smoke or not is_here():
        providers = ", ".join(onnxruntime.get_available_providers())
        raise NotHereError(f"ONNX Runtime {onnxruntime.__version__} has no CUDA provider here, only {providers}")
    driver = Driver()
    for lowering in bundles.LOWERINGS:
        work.attempt("image_encoder", lowering, call=lambda lowering=lowering: _times(work, driver, lowering))


def is_here() -> bool:
    """Whether this ONNX Runtime has the provider; it may still fail to load."""
    onnxruntime = import_onnxruntime()

    return _PROVIDER in onnxruntime.get_available_providers()


def _times(work: Work, driver: Driver, lowering: str) -> dict[str, Any]:
    onnxruntime = import_onnxruntime()
    from samrt.bundle.folder import open_bundle

    bundle = open_bundle(bundles.path_of(work.folder, contenders.MODEL, lowering))
    form = bundle.manifest.form("fp16")
    assert form is not None
    stream = driver.new_stream()
    providers = [(_PROVIDER, {"user_compute_stream": str(stream)})]
    path = str(bundle.path_of(form.graphs["image_encoder"].file))
    session = onnxruntime.InferenceSession(path, providers=providers)
    if session.get_providers()[0] != _PROVIDER:
        raise RuntimeError("the CUDA provider did not load; ONNX Runtime would have used the CPU")
    binding = session.io_binding()
    image = onnxruntime.OrtValue.ortvalue_from_numpy(seeded_image(bundle.manifest.geometry.encoder_side), "cuda", 0)
    binding.bind_ortvalue_input("image", image)
    binding.bind_output("image_embeddings", "cuda", 0)
    return Clock(driver, stream).measure(lambda: session.run_with_iobinding(binding))
