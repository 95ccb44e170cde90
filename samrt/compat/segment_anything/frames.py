"""Which models are in use, so that coordinates for another size of model are refused rather than predicted with."""

from __future__ import annotations

from weakref import WeakSet

from samrt.errors import InputError
from samrt.model import Model

_models: WeakSet[Model] = WeakSet()


def note_model(model: Model) -> None:
    """Remember a model as long as it lives."""
    _models.add(model)


def check_frame(target_length: int) -> None:
    """Raises InputError where there are models, and none takes prompts in a frame with this side.

    Code written for Meta's package may have the 1024 of Meta's models as a number.
    """
    sides = sorted({model.geometry.prompt_side for model in _models})
    if sides and target_length not in sides:
        raise InputError(
            f"ResizeLongestSide({target_length}) would move prompts to a frame of {target_length} pixels, and the "
            f"loaded model's has {' or '.join(map(str, sides))}; use predictor.transform or "
            "ResizeLongestSide(sam.image_encoder.img_size), or a bundle that was exported with that image size"
        )
