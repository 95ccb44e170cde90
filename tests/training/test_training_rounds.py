"""`training/rounds.py`: which masks count, and how much."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from training.recipes import Stage
from training.rounds import Objects, mean_of, run_rounds

OBJECTS = Objects(
    tokens=torch.zeros(2, 4, 1),
    targets=torch.ones(2, 4, 4),
    points=torch.zeros(2, 2),
    boxes=torch.tensor([[0.0, 0.0, 7.0, 7.0]]).repeat(2, 1),
    boxed=torch.tensor([True, False]),
)


class Masks:
    """In a model's place: masks whose losses are given, each with a gradient of its own."""

    side = 8

    def __init__(self, losses: list[list[float]]) -> None:
        self.losses = torch.tensor(losses, requires_grad=True)
        self.seen: list[SimpleNamespace] = []

    def attempt(
        self, tokens: Tensor, points: Tensor, labels: Tensor, mask: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        self.seen.append(SimpleNamespace(points=points, labels=labels, mask=mask))
        logits = torch.arange(4.0)[None, :, None, None].expand(2, 4, 4, 4) - 5
        predicted = torch.tensor([[0.0, 0.1, 0.9, 0.2]] * 2)
        return logits, predicted, self.losses, predicted


def gradients(masks: Masks, task: str, rounds: int = 1) -> Tensor:
    """Of each mask's loss, [2, 4]."""
    stage = Stage(8, 1, 2, 1, 0.0, 0.0, task=task)
    run_rounds(masks, OBJECTS, rounds, torch.Generator().manual_seed(0), stage)["loss"].backward()  # type: ignore[arg-type]
    assert masks.losses.grad is not None
    return masks.losses.grad


def test_the_single_mask_counts_and_the_best_of_the_three() -> None:
    found = gradients(Masks([[1.0, 0.9, 0.5, 0.7], [1.0, 0.3, 0.5, 0.7]]), "prompts")

    assert torch.equal(found, torch.tensor([[0.5, 0.0, 0.5, 0.0], [0.5, 0.5, 0.0, 0.0]]))


def test_while_the_decoder_gets_familiar_only_the_single_mask_counts() -> None:
    found = gradients(Masks([[1.0, 0.9, 0.5, 0.7], [1.0, 0.3, 0.5, 0.7]]), "familiar")

    assert torch.equal(found, torch.tensor([[0.5, 0.0, 0.0, 0.0]] * 2))


def test_a_hopeless_mask_counts_as_one_that_is_merely_bad() -> None:
    """Its gradient is that of its loss scaled down to 2, and the best is still the best of the three."""
    found = gradients(Masks([[40.0, 20.0, 10.0, 30.0], [1.0, 1.0, 3.0, 3.0]]), "prompts")

    assert torch.allclose(found, torch.tensor([[0.5 * 2 / 40, 0.0, 0.5 * 2 / 10, 0.0], [0.5, 0.5, 0.0, 0.0]]))


def test_a_later_round_has_one_more_point_the_last_answer_and_no_ambiguity() -> None:
    masks = Masks([[1.0, 0.9, 0.5, 0.7], [1.0, 0.3, 0.5, 0.7]])
    found = gradients(masks, "prompts", rounds=2)

    assert torch.equal(found, torch.tensor([[0.5, 0.0, 0.25, 0.0], [0.5, 0.25, 0.0, 0.0]]))
    first, second = masks.seen
    assert first.mask is None
    assert (first.points.shape, second.points.shape) == ((2, 2, 2), (2, 3, 2))
    assert second.labels.tolist() == [[2, 3, 1], [1, -1, 1]]  # the masks miss all of the objects
    # A box's answer is the single mask, a point's the most confident of the three.
    assert second.mask[:, 0, 0, 0].tolist() == [-5.0, -3.0]


@pytest.mark.parametrize("task", ["familiar", "prompts"])
def test_the_figures_are_of_the_answers(task: str) -> None:
    masks = Masks([[1.0] * 4] * 2)
    figures = run_rounds(
        masks,  # type: ignore[arg-type]
        OBJECTS,
        1,
        torch.Generator().manual_seed(0),
        Stage(8, 1, 2, 1, 0.0, 0.0, task=task),
    )

    assert {name: round(float(value), 4) for name, value in figures.items() if name != "loss"} == {
        "iou_box": 0.0,
        "iou_point": 0.9,
        "iou_oracle": 0.9,
    }


def test_a_mean_of_nothing_is_no_figure() -> None:
    values, chosen = torch.tensor([0.25, 0.75, float("nan")]), torch.tensor([True, True, False])

    assert float(mean_of(values, chosen)) == 0.5
    assert mean_of(values, torch.zeros(3, dtype=torch.bool)).isnan()
