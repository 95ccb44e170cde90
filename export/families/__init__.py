"""Model families: recognising a checkpoint by its parameter names and shapes, and building its model.

A family is a module with `FAMILY`, `DESCRIPTION`, `matches(state) -> bool` and
`build(state, image_size) -> LoadedModel`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from samrt.errors import BundleError, Remedy
from samrt_export.checkpoint import Checkpoint
from samrt_export.families import conv_vit, foreign, lite_medsam, sam
from samrt_export.families.loading import LoadedModel, State
from samrt_export.families.preparing import Prepared, normalized, prepare
from samrt_export.state import listed

__all__ = ["LoadedModel", "build_model", "load_model"]

_FAMILIES = (sam, conv_vit, lite_medsam)
_PARTS = ("image_encoder", "prompt_encoder", "mask_decoder")


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
        where = f" (under {listed([checkpoint.root])})" if checkpoint.root else ""
        raise BundleError(f"{checkpoint.path}{where}: {error.facts}", error.remedy or _base_for(checkpoint)) from error
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
    prepared = prepare(state)
    for family in _FAMILIES:
        if family.matches(prepared.state):
            loaded: LoadedModel = family.build(prepared.state, image_size)
            return _with_normalization(loaded, prepared)
    parts = Counter(name.partition(".")[0] for name in prepared.state)
    held = [f"{part} ({parts[part]} tensors)" for part in _PARTS if part in parts]
    if held and _PARTS[0] not in parts:
        raise BundleError(f"it holds only a part of a model: {', '.join(held)}, without {_PARTS[0]}")
    raise BundleError(f"its architecture is unknown (the first parameters are {listed(state)}). Supported: {supported}")


def _with_normalization(loaded: LoadedModel, prepared: Prepared) -> LoadedModel:
    normalization, note = normalized(loaded.contract, prepared)
    geometry = replace(loaded.contract.geometry, normalization=normalization)
    notes = (*prepared.notes, *filter(None, [note]))
    return replace(loaded, contract=replace(loaded.contract, geometry=geometry), notes=notes)


def _base_for(checkpoint: Checkpoint) -> Remedy | None:
    """What to do about a checkpoint that is a part of a SAM."""
    if checkpoint.base is not None or {name.partition(".")[0] for name in checkpoint.state}.issuperset(_PARTS):
        return None
    return Remedy(
        "if it is a fine-tuned part of a model, such as a decoder, name the checkpoint it began from ({base})"
    )
