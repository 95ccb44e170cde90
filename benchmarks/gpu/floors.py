"""Floors: the time of a graph's operations or of its bytes at the rates measured on this device, whichever is longer.

The operations are those of the dense computation, with windows padded as published, so that all lowerings have the same
floor. The bytes are weights, inputs and outputs, as if all intermediate results stayed on the chip.
"""

from __future__ import annotations

from typing import Any

_HALF = 2


def of_models(configs: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Operations and bytes of encoder (one image) and decoder (one prompt of two points), by model.

    `configs` has a `VitConfig` and a `DecoderConfig` for each. Needs torch, which counts on shapes alone.
    """
    import torch

    from samrt_export.models.image_encoder_vit import ImageEncoderViT
    from samrt_export.models.sam import DecoderGraph, EncoderGraph, Sam

    counted = {}
    for name, (vit, decoder) in configs.items():
        with torch.device("meta"):
            sam = Sam(ImageEncoderViT(vit), decoder)
            S, h, C = vit.image_size, vit.grid, vit.out_chans
            prompt = (torch.zeros(1, 2, 2), torch.zeros(1, 2, dtype=torch.int32))
            mask = (torch.zeros(1, 1, 4 * h, 4 * h), torch.zeros(1))
            counted[name] = {
                "encoder": _count(EncoderGraph(sam), (torch.zeros(1, 3, S, S),)),
                "decoder": _count(DecoderGraph(sam), (torch.zeros(1, C, h, h), *prompt, *mask)),
            }
    return counted


def of_encoder(vit: Any) -> dict[str, int]:
    """The same of the encoder of one `VitConfig` alone."""
    import torch

    from samrt_export.models.image_encoder_vit import ImageEncoderViT

    with torch.device("meta"):
        return _count(ImageEncoderViT(vit), (torch.zeros(1, 3, vit.image_size, vit.image_size),))


def _count(module: Any, inputs: tuple[Any, ...]) -> dict[str, int]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        outputs = module(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    borders = sum(tensor.numel() * tensor.element_size() for tensor in (*inputs, *outputs))
    weights = _HALF * sum(parameter.numel() for parameter in module.parameters())
    return {"operations": counter.get_total_flops(), "bytes": borders + weights}


def floor(work: Any, model: str, graph: str) -> dict[str, Any]:
    """The floor of one graph, from the phases `floors` and `model_floors`, or the reason why there is none."""
    counted = work.of("model_floors").get("models", {}).get(model, {}).get(graph)
    if counted is None:
        return {"absent": "the phase `model_floors` has no counts"}
    return at_rates(work.of("floors"), counted["operations"], counted["bytes"])


def at_rates(found: dict[str, Any], operations: int, moved_bytes: int) -> dict[str, Any]:
    """The longer of the times of `operations` and `moved_bytes`, at the rates that the phase `floors` recorded."""
    rates = found.get("rates", {})
    if not {"half_operations_per_s", "bytes_per_s"} <= rates.keys():
        return {"absent": "the phase `floors` has no rates"}
    arithmetic = operations / rates["half_operations_per_s"] * 1e3
    memory = moved_bytes / rates["bytes_per_s"] * 1e3
    return {"ms": round(max(arithmetic, memory), 5), "bound_by": "arithmetic" if arithmetic >= memory else "memory"}
