"""The first task of a run: embeddings that tell what belongs together, without a decoder.

From nothing, an encoder and a decoder together first learn to draw a blob around a prompt without looking at the
picture, and stay there for long. Here an object's mask is nothing but the tokens that resemble one of its tokens, or
their mean, so that every token has its own lesson in every step; a decoder then finds embeddings worth looking at.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.rounds import Objects

_SCALE, _THRESHOLD = 10.0, 0.4  # of a cosine, to make a logit of it


def grouping_loss(objects: Objects, side: int) -> dict[str, Tensor]:
    """Cross entropy and dice of P masks made by resemblance, near their boxes; and their mean IoU there, to watch.

    Half of the objects are known by the token under their point, half by the mean of their tokens. Tokens far from an
    object say nothing, as it may have a twin there.

    Args:
        objects: their `tokens` are `[P, h*w, C]`, each object's own image.
        side: of the square input in pixels.
    """
    grid = round(objects.tokens.shape[1] ** 0.5)
    cover = F.adaptive_avg_pool2d(objects.targets[:, None], grid).flatten(1)  # [P, h*w]
    tokens = objects.tokens.float()
    tokens = F.normalize(tokens - tokens.mean(1, keepdim=True), dim=2)
    mean = (cover[:, :, None] ** 2 * tokens).sum(1)
    column, row = ((objects.points + 0.5) * grid / side).long().clamp(0, grid - 1).unbind(1)
    at_point = tokens[torch.arange(len(tokens), device=tokens.device), row * grid + column]
    query = F.normalize(torch.where(objects.boxed[:, None], mean, at_point), dim=1)
    logits = _SCALE * (torch.einsum("ptc,pc->pt", tokens, query) - _THRESHOLD)
    near = _near(objects.boxes * grid / side, grid)
    inside, outside = cover, (1 - cover) * near
    weight = inside / (inside.sum(1, keepdim=True) + 0.1) + outside / (outside.sum(1, keepdim=True) + 0.1)
    entropy = (weight * F.binary_cross_entropy_with_logits(logits, cover, reduction="none")).sum(1)
    probability = logits.sigmoid() * near
    dice = 1 - (2 * (probability * cover).sum(1) + 1) / (probability.sum(1) + cover.sum(1) + 1)
    found, actual = (logits > 0) & near.bool(), cover > 0.5
    iou = (found & actual).sum(1) / (found | actual).sum(1).clamp(min=1)
    return {"loss": (entropy + dice).mean(), "iou_grouping": iou[actual.any(1)].mean()}


def _near(boxes: Tensor, grid: int) -> Tensor:
    """Which tokens lie within half a box's size, and two tokens, of it: `[P, 4]` boxes in tokens to `[P, h*w]`."""
    margin = 0.5 * (boxes[:, 2:] - boxes[:, :2]) + 2
    low, high = boxes[:, :2] - margin, boxes[:, 2:] + margin
    line = torch.arange(grid, device=boxes.device) + 0.5
    columns = (line >= low[:, :1]) & (line <= high[:, :1])
    rows = (line >= low[:, 1:]) & (line <= high[:, 1:])
    return (rows[:, :, None] & columns[:, None]).flatten(1).float()
