"""The ViT-B encoder in TensorRT, one image: input and output on the device, and from and to the host."""

from __future__ import annotations

from typing import Any

import contenders
from device_input import on_device, seeded_image
from driver import Driver
from floors import floor
from timing import Clock
from work import NotHereError, Work


def run(work: Work) -> None:
    if work.smoke:
        raise NotHereError("engines run on a GPU only")
    work.record("floor", value=floor(work, contenders.MODEL, "encoder"))
    driver = Driver()
    for name, *which in contenders.names(work):
        work.attempt("times", name, call=lambda which=which: _times(work, driver, *which))


def _times(work: Work, driver: Driver, flavour: str, lowering: str, graphs: bool) -> dict[str, Any]:
    with contenders.session(work, driver, flavour, lowering, graphs) as (session, stream):
        clock, encoder = Clock(driver, stream), session.encoder
        image = seeded_image(encoder.inputs[0].shape[-1])
        outputs = ("image_embeddings",)
        with on_device(driver, image) as resident:
            on_gpu = clock.measure(lambda: encoder.run({"image": resident}, on_device=outputs))
        return {
            "ran": str(session.choice),
            "device_to_device": on_gpu,
            "host_to_host": {"wall_ms": Clock(None).measure(lambda: encoder.run({"image": image}), 1.5)["wall_ms"]},
            "cuda_graphs": contenders.graph_state(encoder),
        }
