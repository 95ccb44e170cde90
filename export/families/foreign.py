"""Relatives of SAM that samrt does not run, so that a message can name them."""

from __future__ import annotations

from samrt_export.families.loading import State

# A parameter that only this architecture has.
_MARKERS = {
    "mask_decoder.hf_token.weight": "HQ-SAM",
    "image_encoder.trunk.patch_embed.proj.weight": "SAM 2",
    "detector.backbone.vision_backbone.trunk.patch_embed.proj.weight": "SAM 3",
    "mask_decoder.hq_token.weight": "HQ-SAM in Hugging Face's naming",
    "vision_encoder.backbone.patch_embed.projection.weight": "SAM 2 in Hugging Face's naming",
    "image_encoder.features.0.0.c.weight": "EdgeSAM",
    "layer1.0.conv1.weight": "ResNet",
}
_TINY_VIT_PATCHES = "image_encoder.patch_embed.seq.0.c.weight"
_EFFICIENT_SAM_POSITIONS = "image_encoder.pos_embed"


def name_of(state: State) -> str | None:
    """The name of an architecture that is known but not supported, else None."""
    for marker, name in _MARKERS.items():
        if marker in state:
            return name
    # These share their parameter names with a supported architecture and differ in a shape.
    if _TINY_VIT_PATCHES in state and tuple(state[_TINY_VIT_PATCHES].shape[2:]) == (3, 3):
        return "MobileSAM"
    if _EFFICIENT_SAM_POSITIONS in state and state[_EFFICIENT_SAM_POSITIONS].ndim == 3:
        return "EfficientSAM"
    return None
