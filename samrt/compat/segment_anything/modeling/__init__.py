"""Meta's package of this name. The torch modules that a `Sam` consists of exist for annotations only."""

from __future__ import annotations

from samrt.compat.segment_anything.absent import absent
from samrt.compat.segment_anything.modeling import sam
from samrt.compat.segment_anything.modeling.sam import Sam

_INSTEAD = "models are ONNX graphs in a bundle. Export the checkpoint with samrt, and use SamPredictor"

ImageEncoderViT = absent("ImageEncoderViT", _INSTEAD)
MaskDecoder = absent("MaskDecoder", _INSTEAD)
PromptEncoder = absent("PromptEncoder", _INSTEAD)
TwoWayTransformer = absent("TwoWayTransformer", _INSTEAD)

__all__ = ["ImageEncoderViT", "MaskDecoder", "PromptEncoder", "Sam", "TwoWayTransformer", "sam"]
