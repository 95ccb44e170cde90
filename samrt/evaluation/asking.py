"""The model's answers to the prompts of the protocol, for several instances of one image at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.bundle.contract import Size
from samrt.embedding import Embedding
from samrt.evaluation.metrics import iou
from samrt.evaluation.protocol import Point, first_point, next_point, prompt_box
from samrt.evaluation.truths import Mask, Truth
from samrt.model import Model

_MOST_AT_ONCE = 32
# For the four masks of each prompt at the size of the image.
_MASK_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Answer:
    """What the decoder made of one prompt.

    Attributes:
        chosen: which of its masks is the answer; 0 is the single mask, those of an ambiguous prompt follow: 1 to 3 for
            SAM.
        ious: float64 [1 + C], the true IoU of each mask.
        predicted: float32 [1 + C], the model's own estimates.
        mask: bool [H, W], the answer.
        low_res: float32 [1, L, L], its logits.
        points: that were given, in order; none for a box.
    """

    chosen: int
    ious: NDArray[np.float64]
    predicted: NDArray[np.float32]
    mask: Mask
    low_res: NDArray[np.float32]
    points: tuple[Point, ...] = ()


def instances_at_once(size: Size) -> int:
    """How many instances to ask for together in an image of `size` (H, W), so that memory stays bounded."""
    return max(1, min(_MOST_AT_ONCE, _MASK_BYTES // (4 * size[0] * size[1])))


def choose_answer(predicted: NDArray[np.float32], points: int) -> int:
    """Which mask is the answer, from the predicted IoU of the single mask and the ambiguous ones, float32 [1 + C].

    One point may mean a part or the whole: of the ambiguous masks it is the most confident. A box or several points are
    not ambiguous: it is the single-mask output, which SAM was trained to give then (arXiv:2304.02643, appendix A,
    "Making the model ambiguity-aware") and Meta's examples ask for.

    Args:
        predicted: the masks' predicted IoU.
        points: how many were given; 0 for a box.
    """
    return 1 + int(np.argmax(predicted[1:])) if points == 1 else 0


def ask_boxes(model: Model, embedding: Embedding, truths: Sequence[Truth]) -> list[Answer]:
    """The answers to one box each."""
    return _ask(model, embedding, truths, [()] * len(truths), box=[prompt_box(truth) for truth in truths])


def ask_points(model: Model, embedding: Embedding, truths: Sequence[Truth], count: int) -> Iterator[list[Answer]]:
    """The answers to 1, 2, ... `count` points, one list over the instances for each.

    From the second point on the logits of the answer before go along as a mask prompt, as SAM was trained
    (arXiv:2304.02643, appendix A, "Training algorithm"). Where an answer is perfect there is no error to click on: it
    stays as it is.
    """
    answers = _ask(model, embedding, truths, [(first_point(truth),) for truth in truths])
    yield answers
    for _ in range(count - 1):
        points = [next_point(truth.mask(), answer.mask) for truth, answer in zip(truths, answers, strict=True)]
        open_ones = [index for index, point in enumerate(points) if point is not None]
        if open_ones:
            given = [(*answers[index].points, point) for index in open_ones if (point := points[index]) is not None]
            logits = np.stack([answers[index].low_res for index in open_ones])
            fresh = _ask(model, embedding, [truths[index] for index in open_ones], given, mask_input=logits)
            answers = answers.copy()
            for index, answer in zip(open_ones, fresh, strict=True):
                answers[index] = answer
        yield answers


def _ask(
    model: Model, embedding: Embedding, truths: Sequence[Truth], points: Sequence[tuple[Point, ...]], **prompts: Any
) -> list[Answer]:
    """One call of the decoder; instance i has `points[i]`, as many as every other."""
    if points[0]:
        given = np.array(points)
        prompts |= {"point_coords": given[..., :2], "point_labels": given[..., 2]}
    low_res, predicted = model.decoder.answers(embedding, model.prompts_for(embedding, **prompts))
    masks = model.decoder.full_size(embedding, low_res)
    answers = []
    for index, truth in enumerate(truths):
        chosen = choose_answer(predicted[index], len(points[index]))
        # Copies, because a view would keep the masks of all prompts alive.
        answers.append(
            Answer(
                chosen=chosen,
                ious=np.array([iou(mask, truth) for mask in masks[index]]),
                predicted=predicted[index],
                mask=masks[index, chosen].copy(),
                low_res=low_res[index, chosen][None].copy(),
                points=points[index],
            )
        )
    return answers
