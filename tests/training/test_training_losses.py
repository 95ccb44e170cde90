"""`training/losses.py` against the formulas written out, and `training/rounds.py`: where the next point goes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from seeded import normal

from training.losses import mask_losses, true_iou
from training.rounds import Objects, correction, first_prompts


def test_mask_losses_are_the_formulas() -> None:
    logits, targets = 2 * normal(2, 3, 4, 5), torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(1))

    found = mask_losses(logits, targets)

    for p in range(2):
        for m in range(3):
            focal = total = overlap = areas = 0.0
            for logit, t in zip(logits[p, m].flatten().tolist(), targets[p].flatten().tolist(), strict=True):
                q = 1 / (1 + math.exp(-logit))
                focal += (q - t) ** 2 * -(t * math.log(q) + (1 - t) * math.log(1 - q))
                total, overlap, areas = total + 1, overlap + q * t, areas + q + t
            expected = 20 * focal / total + 1 - (2 * overlap + 1) / (areas + 1)
            assert float(found[p, m]) == pytest.approx(expected, rel=1e-4)


def test_a_sharper_right_mask_costs_less_and_a_wrong_one_more() -> None:
    target = torch.zeros(1, 8, 8)
    target[:, 2:6, 2:6] = 1
    signs = 2 * target[:, None] - 1

    right, sharper, wrong = (float(mask_losses(signs * scale, target)) for scale in (2, 8, -2))

    assert sharper < right < wrong


def test_the_edge_term_is_the_mean_cross_entropy_near_the_edge() -> None:
    target = torch.zeros(1, 12, 12)
    target[:, :, 6:] = 1
    logits = 2 * normal(1, 2, 12, 12)

    added = mask_losses(logits, target, edge_weight=3.0) - mask_losses(logits, target)

    near = slice(4, 8)  # two pixels on either side
    entropy = torch.nn.functional.softplus(logits * (1 - 2 * target[:, None]))[..., near]
    torch.testing.assert_close(added, 3.0 * entropy.sum((2, 3)) / (4 * 12 + 1))


def test_iou_counts_pixels() -> None:
    target = torch.zeros(1, 4, 4)
    target[:, :2] = 1
    logits = torch.full((1, 2, 4, 4), -1.0)
    logits[:, 0, 1:3] = 1

    assert true_iou(logits, target).tolist() == [[pytest.approx(4 / 12), 0.0]]


@pytest.mark.parametrize("seed", range(10))
def test_the_next_point_lies_in_an_error_and_says_which(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target, guess = torch.zeros(2, 16, 16), torch.full((2, 16, 16), -3.0)
    x, y = rng.integers(0, 8, 2)
    target[0, y : y + 6, x : x + 6] = 1  # missed
    guess[1, y : y + 6, x : x + 6] = 3  # invented

    point, label = correction(guess, target, 32, torch.Generator().manual_seed(seed))

    assert label.tolist() == [1, 0]
    # Low-res pixel i covers the input's pixels 2i and 2i + 1.
    low = ((point + 0.5) / 2).floor().long()
    assert all(x <= px < x + 6 and y <= py < y + 6 for px, py in low.tolist())
    assert ((point - 0.5) % 2 == 0).all()  # in the middle of the two


def test_by_half_the_next_point_is_the_middle_of_the_error() -> None:
    target, guess = torch.zeros(200, 16, 16), torch.full((200, 16, 16), -3.0)
    target[:, 3:14, 3:14] = 1

    point, _ = correction(guess, target, 16, torch.Generator().manual_seed(0))

    near = ((point - 8).abs().max(1).values <= 1.5).float().mean()
    assert 0.4 < near < 0.75  # anywhere would hit it by 9 in 121


def test_a_perfect_mask_gets_a_point_on_the_object() -> None:
    target = torch.zeros(1, 8, 8)
    target[:, 5, 2] = 1

    point, label = correction(2 * target - 1, target, 8, torch.Generator().manual_seed(0))

    assert (point.tolist(), label.tolist()) == ([[2, 5]], [1])


def test_the_first_prompt_is_a_box_or_a_point_with_its_padding() -> None:
    objects = Objects(
        tokens=torch.zeros(2, 1, 1),
        targets=torch.zeros(2, 4, 4),
        points=torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        boxes=torch.tensor([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]),
        boxed=torch.tensor([True, False]),
    )

    points, labels = first_prompts(objects)

    assert points.tolist() == [[[0, 1], [2, 3]], [[3, 4], [0, 0]]]
    assert labels.tolist() == [[2, 3], [1, -1]]
