"""What is taken out of a state dict before its family is known: what only training needs, and the normalisation."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from samrt.bundle.contract import Contract, Normalization
from samrt.errors import BundleError
from samrt_export.families import hugging_face
from samrt_export.families.loading import State
from samrt_export.state import listed

# Modules beside a model's own, by their names: the masks do not depend on them.
_TRAINING_ONLY = re.compile(
    r"loss|criteri|metric|dice|focal|bce|accura|iou_fn|class|head|aux|discriminat|queue|memory_bank|logger|sampler"
    r"|teacher|optim|(^|_)(ema|step|epoch|iter|scale)",
    re.IGNORECASE,
)
_MEAN, _STD = "pixel_mean", "pixel_std"
_CLOSE = 1e-3  # of a grey level, as half precision keeps them


@dataclass(frozen=True)
class Prepared:
    """The parameters that a family has to know all of; `normalization` is the file's own, if it has one.

    `notes` say, each in one line, what was done with the file.
    """

    state: State
    normalization: Normalization | None
    notes: tuple[str, ...]


def prepare(state: State) -> Prepared:
    """Set aside what no family's graphs hold.

    Raises:
        BundleError: the file's normalisation is none.
    """
    notes = []
    if hugging_face.matches(state):
        state = hugging_face.converted(state)
        notes.append("converted from the parameter names of Hugging Face's SamModel")
    normalization = _normalization_of(state)
    left_out = [name for name in state if is_beside(name) and name not in (_MEAN, _STD)]
    if left_out:
        notes.append(f"left out {len(left_out)} tensors of modules that only training needs ({listed(left_out)})")
    kept = {name: tensor for name, tensor in state.items() if not is_beside(name)}
    return Prepared(kept, normalization, tuple(notes))


def is_beside(name: str) -> bool:
    """Whether this is the name of a tensor that no family's graphs hold."""
    return name in (_MEAN, _STD) or _TRAINING_ONLY.search(name.partition(".")[0]) is not None


def normalized(contract: Contract, prepared: Prepared) -> tuple[Normalization, str]:
    """The normalisation to export with, and a line about it if it is not the family's own.

    Raises:
        BundleError: the file has one of another kind than its family.
    """
    own, found = contract.geometry.normalization, prepared.normalization
    if found is None:
        return own, ""
    if own.mean is None or own.std is None or found.mean is None or found.std is None:
        raise BundleError(
            f"it holds {_MEAN} and {_STD}, and this family takes each image to 0..1 without them; if it was "
            "trained so, save it without the two"
        )
    differing = [abs(a - b) for a, b in zip(own.mean + own.std, found.mean + found.std, strict=True)]
    if max(differing) <= _CLOSE:
        return own, ""
    return found, (
        f"the images are normalised by the checkpoint's own {_MEAN} ({_numbers(found.mean)}) and {_STD} "
        f"({_numbers(found.std)}), not by SAM's"
    )


def _normalization_of(state: State) -> Normalization | None:
    if _MEAN not in state and _STD not in state:
        return None
    mean, std = (_three(state, name) for name in (_MEAN, _STD))
    if min(std) <= 0:
        raise BundleError(f"{_STD} is {_numbers(std)}, and must be above 0; save the model with its normalisation")
    if max(map(abs, mean)) <= 1 and max(std) <= 1:
        raise BundleError(
            f"{_MEAN} ({_numbers(mean)}) and {_STD} ({_numbers(std)}) are of images in 0..1, and samrt's images are "
            "0..255; multiply both by 255 and save the model again"
        )
    return Normalization("mean_std", mean, std)


def _three(state: State, name: str) -> tuple[float, float, float]:
    tensor = state.get(name, torch.empty(0))
    if tensor.numel() != 3 or not isinstance(tensor, Tensor):
        raise BundleError(
            f"{name} has {tensor.numel()} numbers, expected 3: one for each of red, green and blue; save {_MEAN} and "
            f"{_STD} together, or neither"
        )
    red, green, blue = tensor.flatten().tolist()
    return float(red), float(green), float(blue)


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
