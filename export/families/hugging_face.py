"""SAM in the names of Hugging Face's `SamModel`, back to Meta's.

Source: the names are those that transformers' `convert_sam_to_hf` gives to Meta's parameters.
"""

from __future__ import annotations

import re

from torch import Tensor

from samrt.errors import BundleError
from samrt_export.families.loading import State

# What only its names begin with; a fine-tuning may hold any of the parts.
_MARKS = (
    "vision_encoder.patch_embed.projection.",
    "shared_image_embedding.",
    "prompt_encoder.shared_embedding.",
    "prompt_encoder.mask_embed.",
    "mask_decoder.upscale_conv1.",
    "mask_decoder.iou_prediction_head.proj_in.",
)
# The prompt encoder's table of frequencies, which Hugging Face keeps twice: once for the image.
_FREQUENCIES = "prompt_encoder.shared_embedding.positional_embedding"
_IMAGE_FREQUENCIES = "shared_image_embedding.positional_embedding"

# In this order: each is applied to what the ones before have made.
_RENAMED = (
    (r"^prompt_encoder\.shared_embedding\.positional_embedding$",
     "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
    (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    (r"^vision_encoder\.neck\.conv1\.", "vision_encoder.neck.0."),
    (r"^vision_encoder\.neck\.layer_norm1\.", "vision_encoder.neck.1."),
    (r"^vision_encoder\.neck\.conv2\.", "vision_encoder.neck.2."),
    (r"^vision_encoder\.neck\.layer_norm2\.", "vision_encoder.neck.3."),
    (r"^vision_encoder\.layers\.", "vision_encoder.blocks."),
    (r"^vision_encoder\.patch_embed\.projection\.", "vision_encoder.patch_embed.proj."),
    (r"^vision_encoder\.", "image_encoder."),
    (r"\.layer_norm", ".norm"),
)  # fmt: skip
_MLP = re.compile(
    r"^(mask_decoder\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+)\.)(proj_in|layers\.(\d+)|proj_out)\."
)


def matches(state: State) -> bool:
    """Whether these are the names of a `SamModel`."""
    return any(name.startswith(_MARKS) for name in state)


def converted(state: State) -> dict[str, Tensor]:
    """The same tensors in Meta's names.

    Raises:
        BundleError: the two tables of frequencies differ, and Meta's model has one.
    """
    image, prompts = state.get(_IMAGE_FREQUENCIES), state.get(_FREQUENCIES)
    if image is not None and prompts is not None and not image.equal(prompts):
        raise BundleError(
            f"{_IMAGE_FREQUENCIES} and {_FREQUENCIES} differ, and SAM has one such table: tie them and save again"
        )
    last: dict[str, int] = {}
    for name in state:
        if (match := _MLP.match(name)) and match[3]:
            last[match[1]] = max(last.get(match[1], 0), int(match[3]) + 1)
    named = {_renamed(name, last): tensor for name, tensor in state.items() if name != _IMAGE_FREQUENCIES}
    if image is not None:
        named.setdefault(_renamed(_FREQUENCIES, last), image)
    return named


def _renamed(name: str, last: dict[str, int]) -> str:
    """`last`: by MLP, how many layers it has between its first and its last."""
    if match := _MLP.match(name):
        layer = {"proj_in": 0, "proj_out": last.get(match[1], 0) + 1}.get(match[2])
        return f"{match[1]}layers.{int(match[3]) + 1 if layer is None else layer}.{name[match.end() :]}"
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
