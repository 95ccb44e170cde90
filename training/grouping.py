"""The first task of a run: train the encoder, without a decoder, so that the tokens of one object resemble each other.

An encoder and a decoder that start from random weights together first learn to draw a blob around a prompt, without
using the image, and stay there for long. Here an object's mask is made of the tokens that resemble one of its tokens,
or the mean of its tokens. So each step trains every token, and the decoder later starts with useful embeddings.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.rounds import Objects, mean_of

_SCALE, _THRESHOLD = 10.0, 0.4  # of a cosine, to make a logit of it


def grouping_loss(objects: Objects, side: int, per_image: int) -> dict[str, Tensor]:
    """Cross entropy and dice of masks made by resemblance, near their boxes; and their mean IoU there, to watch.

    Half of the objects are given by the token under their point, half by the mean of their tokens. Tokens far from an
    object do not count, because a similar object may be there.

    Args:
        objects: of B images with K objects each, in their order; `tokens` are `[B*K, h*w, C]`.
        side: of the square input in pixels.
        per_image: K.
    """
    tokens = objects.tokens[::per_image].float()  # [B, h*w, C]
    tokens = F.normalize(tokens - tokens.mean(1, keepdim=True), dim=2)
    images, count, _ = tokens.shape
    grid = round(count**0.5)
    cover = F.adaptive_avg_pool2d(objects.targets[:, None], grid).reshape(images, per_image, count)
    column, row = ((objects.points + 0.5) * grid / side).long().clamp(0, grid - 1).unbind(1)
    at_point = torch.take_along_dim(tokens, (row * grid + column).reshape(images, per_image, 1), 1)
    boxed = objects.boxed.reshape(images, per_image, 1)
    query = F.normalize(torch.where(boxed, cover**2 @ tokens, at_point), dim=2)  # [B, K, C]
    logits = _SCALE * (query @ tokens.mT - _THRESHOLD)  # [B, K, h*w]
    near = _near(objects.boxes * grid / side, grid).reshape(images, per_image, count)
    outside = (1 - cover) * near
    weight = cover / (cover.sum(2, keepdim=True) + 0.1) + outside / (outside.sum(2, keepdim=True) + 0.1)
    entropy = (weight * F.binary_cross_entropy_with_logits(logits, cover, reduction="none")).sum(2)
    probability = logits.sigmoid() * near
    dice = 1 - (2 * (probability * cover).sum(2) + 1) / (probability.sum(2) + cover.sum(2) + 1)
    found, actual = (logits > 0) & near.bool(), cover > 0.5
    iou = (found & actual).sum(2) / (found | actual).sum(2).clamp(min=1)
    return {"loss": (entropy + dice).mean(), "iou_grouping": mean_of(iou, actual.any(2))}


def _near(boxes: Tensor, grid: int) -> Tensor:
    """Which tokens lie within half a box's size, and two tokens, of it: `[P, 4]` boxes in tokens to `[P, h*w]`."""
    margin = 0.5 * (boxes[:, 2:] - boxes[:, :2]) + 2
    low, high = boxes[:, :2] - margin, boxes[:, 2:] + margin
    line = torch.arange(grid, device=boxes.device) + 0.5
    columns = (line >= low[:, :1]) & (line <= high[:, :1])
    rows = (line >= low[:, 1:]) & (line <= high[:, 1:])
    return (rows[:, :, None] & columns[:, None]).flatten(1).float()
