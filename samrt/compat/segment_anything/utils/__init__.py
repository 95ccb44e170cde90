"""Meta's package of this name."""

from samrt.compat.segment_anything.utils import onnx, transforms

__all__ = ["onnx", "transforms"]
