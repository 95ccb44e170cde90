"""Meta's module of this name."""

from __future__ import annotations

from samrt.compat.segment_anything.absent import absent

SamOnnxModel = absent("SamOnnxModel", "a bundle holds ONNX graphs already: its manifest names them")
