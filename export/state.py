"""Finding a model's tensors in what a training script saved: under any keys, behind any prefix, beside other things."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from samrt.errors import BundleError
from samrt_export.bookkeeping import Bookkeeping

# The modules of a SAM, in Meta's names and in Hugging Face's. What stands before them is no part of the model.
_PARTS = ("image_encoder", "prompt_encoder", "mask_decoder", "vision_encoder", "shared_image_embedding")
_ENCODERS = ("image_encoder", "vision_encoder")
# Left in names by DistributedDataParallel, torch.compile, fully sharded training and activation checkpoints.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Copies of a model or of its shape that are not the model: averages, teachers, an optimizer's moments.
_COPIES = re.compile(r"(^|_)(ema|swa|grads?)(_|$)|teacher|optim|averag|momentum|exp_avg", re.IGNORECASE)
# What changes the layers of a model, and is not merged into them.
_ADDED_WEIGHTS = re.compile(
    r"(^|[._])(lora|dora|loha|lokr|ia3|hada|adapters?|prompt_generator|prompt_learner)([._]|\d|$)|lora_[AB]"
    r"|(^|\.)linear_[ab]_[qkv](\.|$)|(^|[._])w_[ab]_\d+|adapter|base_layer",
    re.IGNORECASE,
)
# Deeper than any known nesting. A file may hold a container within itself.
_DEEPEST = 8
_SHOWN, _LONGEST = 4, 120
# Characters of all names with the keys before them; those of a model with its optimizer are some hundred thousand.
_MOST_TEXT = 1 << 24

Path = tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """The tensors of a model in the content of a file.

    Attributes:
        state: by name, without what stands before the model's parts.
        root: that, such as "state_dict.model"; empty where nothing does.
        left_out: what else the file holds, each as one name; every name where there is no tensor.
        rivals: other places that hold as much of a model, none more likely than the other.
        strange: names in the model that hold something else than a tensor, with its type.
        added: tensors anywhere in the file that change a model's layers from outside, such as LoRA's.
    """

    state: dict[str, Tensor]
    root: str
    left_out: tuple[str, ...]
    rivals: tuple[str, ...] = ()
    strange: Mapping[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()


def find(content: Mapping[Any, Any]) -> Found:
    """The model in the content of a checkpoint; the state is empty where there is no tensor.

    Raises:
        BundleError: its names are too long; the text has no name of the file.
    """
    leaves: dict[Path, Any] = {}
    length = 0
    for path, value in _leaves(content, (), set()):
        length += sum(map(len, path))
        if length > _MOST_TEXT:
            raise BundleError(f"the names in it are of more than {_MOST_TEXT:,} characters")
        leaves[path] = value
    roots = {path: _root_of(_split(path)) for path, value in leaves.items() if isinstance(value, Tensor)}
    if not roots:
        kinds = {".".join(path): _kind(value) for path, value in leaves.items() if isinstance(value, Bookkeeping)}
        return Found({}, "", tuple(map(".".join, leaves)), strange=kinds)
    parts: dict[Path, set[str]] = {}
    for path, each in roots.items():
        if each is not None:
            parts.setdefault(each, set()).add(_split(path)[len(each)])
    root, *rivals = _likeliest(parts) if parts else [_fullest(leaves)]
    state: dict[str, Tensor] = {}
    strange: dict[str, str] = {}
    left_out: list[str] = []
    for path, value in leaves.items():
        segments = _split(path)
        own = segments[len(root) :] if segments[: len(root)] == root else ()
        if parts:
            own = tuple(segment for segment in own if segment not in _WRAPPERS)
        if own and roots.get(path) in (None, root) and isinstance(value, Tensor) and not _is_copy(own[:1]):
            state.setdefault(".".join(own), value)
        elif len(own) > 1 and own[0] in _PARTS:
            strange[".".join(own)] = _kind(value)
        else:
            left_out.append(_departure(segments, root))
    places = {path: _place(value) for path, value in leaves.items() if isinstance(value, Tensor)}
    return Found(
        state,
        ".".join(root),
        tuple(dict.fromkeys(left_out)),
        tuple(".".join(rival) for rival in rivals if _below(rival, places) != _below(root, places)),
        strange,
        tuple(name for name in map(".".join, roots) if _ADDED_WEIGHTS.search(name) and not _is_copy(name.split("."))),
    )


def listed(names: Iterable[str]) -> str:
    """The first of some names out of a file, fit for a terminal."""
    names = list(names)
    shown = ", ".join(repr(name[:_LONGEST])[1:-1] for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _kind(value: object) -> str:
    return "a numpy array or setting" if isinstance(value, Bookkeeping) else f"of type {type(value).__name__}"


def _leaves(content: Mapping[Any, Any], path: Path, seen: set[int]) -> Iterator[tuple[Path, Any]]:
    """Every value that is no dictionary, by the keys that lead to it; each dictionary once."""
    seen.add(id(content))
    for key, value in content.items():
        if not isinstance(key, str | int):
            continue
        here = (*path, str(key))
        if isinstance(value, Mapping) and value and len(here) < _DEEPEST:
            if id(value) not in seen:
                yield from _leaves(value, here, seen)
        else:
            yield here, value


def _split(path: Path) -> Path:
    return tuple(segment for key in path for segment in key.split("."))


def _root_of(segments: Path) -> Path | None:
    """What stands before the first part of a SAM, or None without one."""
    return next((segments[:index] for index, each in enumerate(segments[:-1]) if each in _PARTS), None)


def _is_copy(segments: Iterable[str]) -> bool:
    return any(map(_COPIES.search, segments))


def _likeliest(parts: Mapping[Path, set[str]]) -> list[Path]:
    """Of the places that hold parts of a SAM, those that hold most of a model, and no copy if there is another."""
    ranks = {root: (not _is_copy(root), bool(found & set(_ENCODERS)), len(found)) for root, found in parts.items()}
    return sorted(root for root, rank in ranks.items() if rank == max(ranks.values()))


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for tensors that are one: a script may have saved its model under several names."""
    if (
        type(tensor) not in (Tensor, torch.nn.Parameter)
        or tensor.layout != torch.strided
        or tensor.device.type != "cpu"
    ):
        return (id(tensor),)
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _below(root: Path, places: Mapping[Path, tuple[Any, ...]]) -> dict[Path, tuple[Any, ...]]:
    """The tensors of a root, by the names that they have there."""
    split = {_split(path): place for path, place in places.items()}
    return {path[len(root) :]: place for path, place in split.items() if path[: len(root)] == root}


def _fullest(leaves: Mapping[Path, Any]) -> Path:
    """The keys of the dictionary that holds most tensors, and the wrappers that all its names begin with."""
    tensors = [path for path, value in leaves.items() if isinstance(value, Tensor)]
    holders = Counter(path[:-1] for path in tensors if not _is_copy(path[:-1]))
    keys = holders.most_common(1)[0][0] if holders else ()
    root = _split(keys)
    names = [_split(path) for path in tensors if path[: len(keys)] == keys]
    while len(first := {name[len(root)] for name in names}) == 1 and first <= set(_WRAPPERS):
        if any(len(name) == len(root) + 1 for name in names):
            break
        root += tuple(first)
    return root


def _departure(segments: Path, root: Path) -> str:
    """Where a name leaves the way to the model, as far as that one segment."""
    shared = next((i for i, pair in enumerate(zip(segments, root, strict=False)) if pair[0] != pair[1]), len(root))
    return ".".join(segments[: shared + 1])
