"""A fine-tuning that saved a part of a model, laid over the checkpoint that it began from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from math import sqrt

from torch import Tensor

from samrt.errors import BundleError, Remedy
from samrt_export.checkpoint import Checkpoint
from samrt_export.families import hugging_face
from samrt_export.families.loading import State
from samrt_export.families.preparing import is_beside
from samrt_export.state import listed

# The frequencies of positions: drawn at random once, never trained, and so a mark of where a model came from.
_FREQUENCIES = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_HALF_PRECISION = 1e-2
# Of unrelated weights the difference is 1.4 times their size; after a fine-tuning far less.
_UNRELATED = 1.0

_ANOTHER = Remedy("name the checkpoint that it began from ({base})")
_NO_BASE = Remedy("leave {base} out")


def over_base(fine: Checkpoint, base: Checkpoint) -> tuple[Checkpoint, list[str]]:
    """The model of `base` with the tensors of `fine` in place of its own, and lines that say what is from where.

    `fine` may hold any part of the model, in the names of the whole or, as of `mask_decoder.state_dict()`, of the part.

    Raises:
        BundleError: `fine` has a tensor that `base` lacks or of another shape, nothing is left to take from `base`, or
            `fine` did not begin from it.
    """
    if hugging_face.matches(base.state):
        base = replace(base, state=hugging_face.converted(base.state))
    own = _in_names_of(base, fine)
    taken = [name for name in base.state if name not in own]
    if not taken:
        raise BundleError(f"{fine.path} holds a whole model, and nothing is left to take from {base.path}", _NO_BASE)
    for name in own.keys() & base.state.keys():
        found, expected = own[name].shape, base.state[name].shape
        if found != expected:
            raise BundleError(
                f"{listed([name])} has the shape {list(found)} in {fine.path} and {list(expected)} in {base.path}: it "
                "did not begin from that checkpoint",
                _ANOTHER,
            )
    notes = [f"taken from {fine.path.name}: {_parts(own)}", f"taken from {base.path.name}: {_parts(taken)}"]
    notes += _check_related(own, fine, base)
    kept = replace(base, state={name: base.state[name] for name in taken})
    return replace(fine, state={**base.state, **own}, base=kept), notes


def _in_names_of(base: Checkpoint, fine: Checkpoint) -> dict[str, Tensor]:
    """The tensors of `fine` in the names of `base`."""
    state = hugging_face.converted(fine.state) if hugging_face.matches(fine.state) else fine.state
    # A part's own modules may be called like those of training: the decoder's iou_prediction_head.
    prefix = _prefix(list(state), base.state) or _prefix([n for n in state if not is_beside(n)], base.state)
    own = {f"{prefix}{name}" if f"{prefix}{name}" in base.state else name: tensor for name, tensor in state.items()}
    strange = [name for name in own if name not in base.state and not is_beside(name)]
    if strange or not own.keys() & base.state.keys():
        raise BundleError(
            f"{fine.path} holds tensors that {base.path} lacks ({listed(strange or own)}): it is no part of one",
            _ANOTHER,
        )
    return own


def _prefix(names: list[str], base: State) -> str:
    """What to put before all names so that they are names of `base`; empty if nothing does it."""
    first = min(names, default="")
    prefixes = [name.removesuffix(first) for name in base if name == first or name.endswith(f".{first}")]
    return next((each for each in prefixes if all(f"{each}{name}" in base for name in names)), "")


def _check_related(own: State, fine: Checkpoint, base: Checkpoint) -> list[str]:
    """Refuse weights that began elsewhere; a line where that is likely and not certain."""
    if _FREQUENCIES in own and _difference([_FREQUENCIES], own, base.state) > _HALF_PRECISION:
        raise BundleError(
            f"{_FREQUENCIES} differs between {fine.path} and {base.path}, and training never changes it: the one did "
            "not begin from the other",
            _ANOTHER,
        )
    difference = _difference([name for name in own if name in base.state], own, base.state)
    if difference < _UNRELATED:
        return []
    return [
        f"the weights of {fine.path.name} differ from those of {base.path.name} by {difference:.2f} times their size, "
        "as unrelated ones do: check that it began from that checkpoint"
    ]


def _difference(names: list[str], own: State, base: State) -> float:
    """The distance of some tensors from those of the base, in lengths of the base's."""
    floating = [name for name in names if own[name].is_floating_point() and base[name].is_floating_point()]
    distance = sum(float((own[name] - base[name]).square().sum()) for name in floating)
    length = sum(float(base[name].square().sum()) for name in floating)
    return sqrt(distance / length) if length else 0.0


def _parts(names: Iterable[str]) -> str:
    """How many tensors there are of each part."""
    counts = Counter(name.partition(".")[0] for name in names)
    return ", ".join(f"{part} ({count} tensors)" for part, count in counts.items())
