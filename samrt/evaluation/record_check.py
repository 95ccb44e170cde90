"""Whether a record of a journal can be one of its data set and model.

A line's checksum shows damage. It does not show who wrote the line, or what changed in the data set since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from samrt.bundle.contract import Size
from samrt.bundle.json_reader import is_number
from samrt.errors import InputError
from samrt.evaluation.baselines import baselines_of
from samrt.evaluation.protocol import PromptPlan
from samrt.evaluation.truths import Truth
from samrt.rle import area_and_box

# The model's estimates are float32.
_LARGEST = 3.5e38


@dataclass(frozen=True)
class Surveyed:
    """What a record must agree with: (H, W) of an image, and a digest of its instances' names, areas and boxes."""

    size: Size
    digest: bytes

    @classmethod
    def of(cls, size: Size, truths: Iterable[Truth]) -> Surveyed:
        return cls(size, _digest([(truth.name, truth.area, truth.box) for truth in truths]))


@dataclass(frozen=True)
class RecordCheck:
    """The records that an evaluation can have made.

    Attributes:
        images: the data set's, by name.
        plan: which prompts there are.
        masks: how many masks a prompt has.
    """

    images: Mapping[str, Surveyed]
    plan: PromptPlan
    masks: int

    def fits(self, record: Mapping[str, Any]) -> bool:
        """Whether a record, `{"image": name, "instances": [...]}`, has the types and values that samrt writes."""
        image = self.images.get(record["image"])
        instances = record["instances"]
        if image is None or not all(map(_is_instance, instances)):
            return False
        found = [(each["name"], each["area"], each["box"]) for each in instances]
        return _digest(found) == image.digest and all(self._is_scored(each, image.size) for each in instances)

    def _is_scored(self, instance: Mapping[str, Any], size: Size) -> bool:
        prompts, baselines = instance["prompts"], instance["baselines"]
        return all(
            all(_are_shares(baselines.get(name), 2) for name in baselines_of(prompt))
            and self._is_score(prompts.get(prompt), prompt, size)
            for prompt in self.plan.names
        )

    def _is_score(self, score: Any, prompt: str, size: Size) -> bool:
        if not isinstance(score, dict):
            return False
        predicted, points = score.get("predicted"), score.get("points")
        return (
            _is_index(score.get("answer"), self.masks)
            and _are_shares(score.get("iou"), self.masks)
            and _is_list(predicted, self.masks)
            and all(is_number(value) and abs(value) <= _LARGEST for value in predicted)
            and _are_shares([score.get("boundary_iou")], 1)
            and (prompt == "box" or _are_points(points, int(prompt.partition(":")[2]), size))
            and (prompt not in self.plan.shown or _is_mask(score.get("mask"), size))
        )


def _digest(instances: Sequence[tuple[Any, Any, Any]]) -> bytes:
    return hashlib.sha256(json.dumps(instances).encode()).digest()


def _is_instance(value: Any) -> bool:
    """Whether a value has what the digest is of, and the two mappings."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and type(value.get("area")) is int
        and _is_list(box := value.get("box"), 4)
        and all(type(side) is int for side in box)
        and all(isinstance(value.get(key), dict) for key in ("prompts", "baselines"))
    )


def _is_list(value: Any, length: int) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and len(value) == length


def _are_shares(value: Any, length: int) -> bool:
    return _is_list(value, length) and all(is_number(each) and 0 <= each <= 1 for each in value)


def _is_index(value: Any, count: int) -> bool:
    return type(value) is int and 0 <= value < count


def _are_points(value: Any, most: int, size: Size) -> bool:
    """Fewer than `most` where the answer was perfect."""
    return (
        isinstance(value, list)
        and 1 <= len(value) <= most
        and all(_is_list(point, 3) for point in value)
        and all(_is_index(x, size[1]) and _is_index(y, size[0]) and _is_index(label, 2) for x, y, label in value)
    )


def _is_mask(value: Any, size: Size) -> bool:
    if not isinstance(value, dict) or value.get("size") != list(size):
        return False
    try:
        area_and_box(value)
    except InputError:
        return False
    return True
