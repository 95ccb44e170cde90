"""What is kept of each image: the scores of its instances under every prompt, as JSON.

{"image": "a.jpg", "instances": [{"name": "a.png#3", "area": 812, "box": [x0, y0, x1, y1],
  "baselines": {"disc": [IoU, boundary IoU], ...},
  "prompts": {"points:2": {"answer": 0, "iou": [4], "predicted": [4], "boundary_iou": b,
                           "points": [[x, y, label], ...], "mask": COCO run lengths}, ...}}]}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from samrt.embedding import Embedding
from samrt.evaluation.asking import Answer, ask_boxes, ask_points, instances_at_once
from samrt.evaluation.baselines import baseline_masks
from samrt.evaluation.metrics import boundary_iou, iou
from samrt.evaluation.protocol import PromptPlan, first_point
from samrt.evaluation.truths import Truth
from samrt.model import Model
from samrt.rle import encode

# Six digits are more than any score means, and half the bytes.
_DIGITS = 6

Record = dict[str, Any]


def evaluate_instances(
    model: Model, embedding: Embedding, truths: Sequence[Truth], plan: PromptPlan, disc_radius: float
) -> list[Record]:
    """The records of one image's instances.

    Raises:
        BackendError: the decoder failed, or its result is not finite.
    """
    records: list[Record] = []
    at_once = instances_at_once(embedding.original_size)
    for start in range(0, len(truths), at_once):
        some = truths[start : start + at_once]
        scores: list[Record] = [{} for _ in some]
        for name, answers in _answers(model, embedding, some, plan):
            for entry, truth, answer in zip(scores, some, answers, strict=True):
                entry[name] = _score(answer, truth, keep_mask=name in plan.shown)
        records += [
            {
                "name": truth.name,
                "area": truth.area,
                "box": list(truth.box),
                "baselines": _baselines(truth, plan, disc_radius),
                "prompts": entry,
            }
            for truth, entry in zip(some, scores, strict=True)
        ]
    return records


def _answers(
    model: Model, embedding: Embedding, truths: Sequence[Truth], plan: PromptPlan
) -> Iterator[tuple[str, list[Answer]]]:
    """Each kind of prompt that is reported, with the answers to it."""
    if plan.box:
        yield "box", ask_boxes(model, embedding, truths)
    if plan.points:
        for count, answers in enumerate(ask_points(model, embedding, truths, plan.points), start=1):
            if f"points:{count}" in plan.names:
                yield f"points:{count}", answers


def _score(answer: Answer, truth: Truth, *, keep_mask: bool) -> Record:
    score: Record = {
        "answer": answer.chosen,
        "iou": [round(float(value), _DIGITS) for value in answer.ious],
        "predicted": [round(float(value), _DIGITS) for value in answer.predicted],
        "boundary_iou": round(boundary_iou(answer.mask, truth), _DIGITS),
    }
    if answer.points:
        score["points"] = np.array(answer.points).tolist()
    if keep_mask:
        score["mask"] = encode(answer.mask)
    return score


def _baselines(truth: Truth, plan: PromptPlan, disc_radius: float) -> dict[str, list[float]]:
    point = first_point(truth) if plan.points else None
    return {
        name: [round(iou(mask, truth), _DIGITS), round(boundary_iou(mask, truth), _DIGITS)]
        for name, mask in baseline_masks(truth, plan.box, point, disc_radius).items()
    }
