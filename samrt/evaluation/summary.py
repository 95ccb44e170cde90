"""From the records of a data set to its scores: one row for each kind of prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samrt.evaluation.baselines import baselines_of
from samrt.evaluation.metrics import correlation, mean
from samrt.evaluation.records import Record

Column = NDArray[np.float64]
_BASELINE = "baseline "


@dataclass(frozen=True, eq=False)
class Table:
    """The numbers of a data set's N instances under one kind of prompt, without their masks.

    Attributes:
        prompt: "box" or "points:N".
        instances: N pairs of names: of the image, and of the instance in it.
        images: int64 [N], which image an instance is in, counted in the order of the records.
        columns: float64 [N] each: "iou", "boundary_iou" and "predicted" of the answer, "confident" (IoU of the most
            confident of three masks) and "oracle" (of the best of three), and "iou" and "boundary_iou" of baselines,
            by `baseline_column`.
    """

    prompt: str
    instances: list[tuple[str, str]]
    images: NDArray[np.int64]
    columns: dict[str, Column]


@dataclass(frozen=True)
class Score:
    """Means over instances of IoU and boundary IoU."""

    miou: float
    boundary_miou: float


@dataclass(frozen=True)
class Row:
    """The scores of a data set under one kind of prompt; all are means over its instances.

    Attributes:
        data_set: its name.
        prompt: "box" or "points:N".
        instances: how many.
        answer: of the model's answer.
        confident_miou: of the most confident of the three masks; for one point that is the answer.
        oracle_miou: of the one of the three that fits the truth best.
        predicted_iou: the model's own estimate for its answer.
        correlation: Pearson's, of that estimate with the true IoU; None where it is not defined.
        baselines: of masks that see no image.
    """

    data_set: str
    prompt: str
    instances: int
    answer: Score
    confident_miou: float
    oracle_miou: float
    predicted_iou: float
    correlation: float | None
    baselines: dict[str, Score]


def tabulate(records: Iterable[Record], prompts: Sequence[str]) -> list[Table]:
    """The tables of the `prompts`, from the records of images."""
    images: list[int] = []
    instances: list[tuple[str, str]] = []
    columns: dict[str, dict[str, list[float]]] = {prompt: defaultdict(list) for prompt in prompts}
    for number, record in enumerate(records):
        for instance in record["instances"]:
            images.append(number)
            instances.append((record["image"], instance["name"]))
            for prompt in prompts:
                for name, value in _numbers(instance, prompt).items():
                    columns[prompt][name].append(value)
    where = np.array(images, np.int64)
    return [
        Table(
            prompt, instances, where, {name: np.array(values, np.float64) for name, values in columns[prompt].items()}
        )
        for prompt in prompts
    ]


def _numbers(instance: Record, prompt: str) -> dict[str, float]:
    score = instance["prompts"][prompt]
    ious, predicted = score["iou"], score["predicted"]
    numbers = {
        "iou": ious[score["answer"]],
        "boundary_iou": score["boundary_iou"],
        "predicted": predicted[score["answer"]],
        "confident": ious[1 + int(np.argmax(predicted[1:]))],
        "oracle": max(ious[1:]),
    }
    for name in baselines_of(prompt):
        overlap, at_boundary = instance["baselines"][name]
        numbers |= {baseline_column(name, "iou"): overlap, baseline_column(name, "boundary_iou"): at_boundary}
    return numbers


def baseline_column(name: str, score: str) -> str:
    """The column of a baseline's "iou" or "boundary_iou"."""
    return f"{_BASELINE}{name}: {score}"


def summarise(data_set: str, table: Table) -> Row:
    """The row of a table that has at least one instance."""
    columns = table.columns
    return Row(
        data_set=data_set,
        prompt=table.prompt,
        instances=len(table.images),
        answer=Score(mean(columns["iou"]), mean(columns["boundary_iou"])),
        confident_miou=mean(columns["confident"]),
        oracle_miou=mean(columns["oracle"]),
        predicted_iou=mean(columns["predicted"]),
        correlation=correlation(columns["predicted"], columns["iou"]),
        baselines={
            name: Score(*(mean(columns[baseline_column(name, score)]) for score in ("iou", "boundary_iou")))
            for name in baselines_of(table.prompt)
        },
    )
