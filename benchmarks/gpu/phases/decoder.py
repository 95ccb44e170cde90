"""SAM's decoder in TensorRT, the embedding on the device; masks left there, and fetched."""

from __future__ import annotations

from typing import Any

import contenders
from device_input import seeded_image, seeded_prompts
from driver import Driver
from floors import floor
from timing import Clock
from work import NotHereError, Work

_PROMPTS = ((1, 2), (1, 16), (4, 2))  # prompts, points of each; within the limits that engines are built with


def run(work: Work) -> None:
    if work.smoke:
        raise NotHereError("engines run on a GPU only")
    work.record("floor of 1 prompt, 2 points", value=floor(work, contenders.MODEL, "decoder"))
    driver = Driver()
    for name, flavour, lowering, graphs in contenders.names(work):
        # Both lowerings have the same decoder.
        if lowering == contenders.names(work)[0][2]:
            work.attempt("times", name, call=lambda which=(flavour, lowering, graphs): _times(work, driver, *which))


def _times(work: Work, driver: Driver, flavour: str, lowering: str, graphs: bool) -> dict[str, Any]:
    with contenders.session(work, driver, flavour, lowering, graphs) as (session, stream):
        clock, decoder = Clock(driver, stream), session.decoder
        side = session.encoder.inputs[0].shape[-1]
        encoded = session.encoder.run({"image": seeded_image(side)}, on_device=("image_embeddings",))
        results: dict[str, Any] = {"ran": str(session.choice)}
        outputs = tuple(tensor.name for tensor in decoder.outputs)
        for prompts, points in _PROMPTS:
            inputs = {**encoded, **seeded_prompts(side, side // 4, prompts, points)}
            results[f"{prompts} prompts, {points} points"] = {
                "masks_on_device": clock.measure(lambda inputs=inputs: decoder.run(inputs, on_device=outputs), 2.0),
                "masks_on_host": {
                    "wall_ms": Clock(None).measure(lambda inputs=inputs: decoder.run(inputs), 1.0)["wall_ms"]
                },
            }
        results["cuda_graphs"] = contenders.graph_state(decoder)
        return results
