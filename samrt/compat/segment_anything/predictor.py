"""Meta's module of this name."""

from __future__ import annotations

from samrt.compat.segment_anything.frames import note_model
from samrt.model import Model
from samrt.predictor import SamPredictor as _SamPredictor


class SamPredictor(_SamPredictor):
    """`samrt.SamPredictor`, whose model `ResizeLongestSide` of this package knows."""

    def __init__(self, sam_model: Model) -> None:
        super().__init__(sam_model)
        note_model(sam_model)
