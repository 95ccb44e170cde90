"""Meta's package of this name."""

from samrt.compat.segment_anything.utils import amg, onnx, transforms

__all__ = ["amg", "onnx", "transforms"]
