"""`training/grouping.py`: the loss of embeddings as masks made by resemblance."""

from __future__ import annotations

import torch
from seeded import normal

from training.grouping import grouping_loss
from training.rounds import Objects

SIDE, GRID = 64, 8


def _objects(tokens: torch.Tensor) -> Objects:
    """Two objects of one picture, 3 x 3 tokens in its upper left and 2 x 2 in its lower right; the first by its box."""
    masks = torch.zeros(2, GRID, GRID)
    masks[0, 0:3, 0:3] = 1
    masks[1, 6:8, 6:8] = 1
    targets = masks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    boxes = torch.tensor([[0.0, 0.0, 23.0, 23.0], [48.0, 48.0, 63.0, 63.0]])
    points = torch.tensor([[9.0, 9.0], [55.0, 60.0]])
    return Objects(tokens, targets, points, boxes, torch.tensor([True, False]))


def _one_hot(*ids: int) -> torch.Tensor:
    """Embeddings of 8 x 8 tokens by which the two objects differ from the rest: the ids of rest, first and second."""
    labels = torch.full((GRID, GRID), ids[0])
    labels[0:3, 0:3], labels[6:8, 6:8] = ids[1], ids[2]
    return torch.nn.functional.one_hot(labels.flatten(), 4).float().expand(2, -1, -1)


def test_embeddings_that_tell_objects_apart_cost_little() -> None:
    found = grouping_loss(_objects(_one_hot(0, 1, 2)), SIDE, 2)

    assert float(found["iou_grouping"]) == 1
    assert float(found["loss"]) < 0.1


def test_embeddings_that_do_not_cost_more() -> None:
    # The second object looks like what is around it.
    costs = [
        float(grouping_loss(_objects(tokens), SIDE, 2)["loss"]) for tokens in (_one_hot(0, 1, 0), normal(2, 64, 4))
    ]

    assert min(costs) > 1


def test_a_twin_far_away_says_nothing() -> None:
    # Each object is as far from the other as its box says, so that both may look alike.
    assert float(grouping_loss(_objects(_one_hot(0, 1, 1)), SIDE, 2)["iou_grouping"]) == 1


def test_every_object_is_looked_for_in_its_own_image() -> None:
    good, bad = _objects(_one_hot(0, 1, 2)), _objects(_one_hot(0, 0, 0) + 0.1 * normal(1, 64, 4).expand(2, -1, -1))
    pairs = ((getattr(good, name), getattr(bad, name)) for name in ("tokens", "targets", "points", "boxes", "boxed"))

    both = grouping_loss(Objects(*(torch.cat(pair) for pair in pairs)), SIDE, 2)["loss"]

    apart = [grouping_loss(objects, SIDE, 2)["loss"] for objects in (good, bad)]
    torch.testing.assert_close(both, sum(apart) / 2)


def test_the_loss_says_how_to_change_the_embeddings() -> None:
    tokens = normal(1, 64, 4).requires_grad_(True)
    before = grouping_loss(_objects(tokens.expand(2, -1, -1)), SIDE, 2)["loss"]
    (gradient,) = torch.autograd.grad(before, tokens)

    after = grouping_loss(_objects((tokens - 0.1 * gradient).expand(2, -1, -1)), SIDE, 2)["loss"]

    assert after.item() < before.item()
