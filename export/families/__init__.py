"""Model families: recognising a checkpoint by its parameter names and shapes, and building its model.

A family is a module with `FAMILY`, `DESCRIPTION`, `matches(state) -> bool` and
`build(state, image_size) -> LoadedModel`.
"""

from __future__ import annotations

from samrt.errors import BundleError
from samrt_export.checkpoint import Checkpoint
from samrt_export.families import conv_vit, foreign, lite_medsam, sam
from samrt_export.families.loading import LoadedModel, State, shown

__all__ = ["LoadedModel", "build_model", "load_model"]

_FAMILIES = (sam, conv_vit, lite_medsam)


def load_model(checkpoint: Checkpoint, model: str | None = None, image_size: int | None = None) -> LoadedModel:
    """Build the model that a checkpoint holds; its parameters are the checkpoint's tensors, not copies.

    Args:
        checkpoint: from `read_checkpoint`.
        model: the family ("sam") or variant ("vit_b") that the checkpoint is expected to hold; None: any.
        image_size: side of the square input in pixels; None: the one it was trained at.

    Raises:
        BundleError: the architecture is unknown or another than `model`, parameters are missing, unexpected or
            misshapen, or the family cannot be built for `image_size`.
    """
    try:
        loaded = build_model(checkpoint.state, image_size)
    except BundleError as error:
        raise BundleError(f"{checkpoint.path}: {error}") from error
    if model not in (None, loaded.family, loaded.variant):
        raise BundleError(
            f"{checkpoint.path} holds {loaded.variant} of the family {loaded.family}, not {model}: "
            "give the matching checkpoint, or leave the model's name out"
        )
    return loaded


def build_model(state: State, image_size: int | None) -> LoadedModel:
    """`load_model` of a state dict."""
    supported = "; ".join(family.DESCRIPTION for family in _FAMILIES)
    if name := foreign.name_of(state):
        raise BundleError(f"its architecture is {name}, which samrt does not run. Supported: {supported}")
    for family in _FAMILIES:
        if family.matches(state):
            loaded: LoadedModel = family.build(state, image_size)
            return loaded
    first = ", ".join(map(shown, list(state)[:4]))
    raise BundleError(f"its architecture is unknown (the first parameters are {first}). Supported: {supported}")
