"""The rounds of one step: a first prompt, then points where the mask was wrong, with the mask fed back.

Source: Segment Anything (arXiv:2304.02643), appendix A, "Training algorithm", with fewer rounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.model import PromptableModel
from training.recipes import Stage

_MOST = 2.0  # cap on the loss of a mask: LiteMedSAM was not trained for points, whose losses would dominate at first


@dataclass(frozen=True)
class Objects:
    """P objects of a batch, on the model's device.

    Attributes:
        tokens: `[P, h*w, C]`, each object's own image.
        targets: float32 `[P, L, L]` coverages in 0..1.
        points: float32 `[P, 2]`, and boxes: float32 `[P, 4]`, in pixels of the padded input.
        boxed: bool `[P]`, whether the box is the first prompt.
    """

    tokens: Tensor
    targets: Tensor
    points: Tensor
    boxes: Tensor
    boxed: Tensor


def run_rounds(
    model: PromptableModel, objects: Objects, rounds: int, generator: torch.Generator, stage: Stage
) -> dict[str, Tensor]:
    """The loss of all rounds under "loss", to differentiate, and means to watch."""
    points, labels = first_prompts(objects)
    mask: Tensor | None = None
    losses, watched = [], {}
    for index in range(rounds):
        logits, predicted, each, quality = model.attempt(objects.tokens, points, labels, mask, objects.targets)
        loss = _tempered(each[:, 0])
        if index == 0 and stage.task == "prompts":
            # A single prompt may mean a part or the whole: of its three masks only the best has to be good.
            loss = loss + _tempered(each[:, 1:].min(1).values)
        losses.append(loss.mean() + stage.iou_weight * F.mse_loss(predicted, quality))
        answer = 1 + predicted[:, 1:].argmax(1)
        answer = torch.where(objects.boxed, 0, answer) if index == 0 else torch.zeros_like(answer)
        watched.update(_watched(index, objects.boxed, quality, answer))
        if index + 1 < rounds:
            chosen = logits.gather(1, answer[:, None, None, None].expand(-1, 1, *logits.shape[2:])).detach()
            mask = chosen.clamp(-32, 32)
            point, label = correction(chosen[:, 0], objects.targets, model.side, generator)
            points, labels = torch.cat([points, point[:, None]], 1), torch.cat([labels, label[:, None]], 1)
    return {"loss": torch.stack(losses).mean(), **watched}


def _tempered(loss: Tensor) -> Tensor:
    """Losses whose gradients are those of `_MOST` at most, in proportion."""
    return loss / (loss.detach() / _MOST).clamp(min=1)


def first_prompts(objects: Objects) -> tuple[Tensor, Tensor]:
    """Each object's box, or its point and a padding point: `[P, 2, 2]` and labels `[P, 2]`."""
    alone = torch.stack([objects.points, torch.zeros_like(objects.points)], 1)
    points = torch.where(objects.boxed[:, None, None], objects.boxes.unflatten(1, (2, 2)), alone)
    device = points.device
    labels = torch.where(
        objects.boxed[:, None], torch.tensor([2, 3], device=device), torch.tensor([1, -1], device=device)
    )
    return points, labels


@torch.no_grad()
def correction(logits: Tensor, targets: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A point where `[P, L, L]` masks are wrong, by half in the middle of an error, by half anywhere in one.

    Returns:
        `[P, 2]` in pixels of the padded input, and labels `[P]`: 1 where the object was missed, 0 beside it.
    """
    actual = targets > 0.5
    wrong = ((logits > 0) != actual).float()
    # A perfect mask gets a point on the object, which changes nothing.
    wrong = torch.where(wrong.flatten(1).any(1)[:, None, None], wrong, actual.float())
    inner = wrong[:, None]
    depth = wrong.clone()
    for _ in range(5):  # how many times it can be worn off tells how far inside a pixel lies
        inner = -F.max_pool2d(-inner, 3, 1, 1)
        depth += inner[:, 0]
    noise = torch.rand(depth.shape, generator=generator, device=depth.device)
    middle = torch.rand(len(depth), 1, 1, generator=generator, device=depth.device) < 0.5
    where = (torch.where(middle, depth, wrong) * (1 + noise) * wrong).flatten(1).argmax(1)
    length = depth.shape[-1]
    pixels = side / length
    y, x = where // length, where % length
    point = torch.stack([x, y], 1).float() * pixels + (pixels - 1) / 2
    return point, actual.flatten(1).gather(1, where[:, None])[:, 0].long()


def _watched(index: int, boxed: Tensor, quality: Tensor, answer: Tensor) -> dict[str, Tensor]:
    iou = quality.gather(1, answer[:, None])[:, 0]
    if index:
        return {f"iou_round{index + 1}": iou.mean()}
    best = quality[:, 1:].max(1).values
    return {"iou_box": mean_of(iou, boxed), "iou_point": mean_of(iou, ~boxed), "iou_oracle": mean_of(best, ~boxed)}


def mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the values that a mask chooses, or NaN where it chooses none; unlike indexing it awaits no GPU."""
    return torch.where(chosen, values, 0.0).sum() / chosen.sum()
