"""The losses: those of SAM (arXiv:2304.02643, appendix A, "Losses")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_FOCAL_WEIGHT, _DICE_WEIGHT = 20.0, 1.0
_GAMMA = 2.0


def mask_losses(logits: Tensor, targets: Tensor, edge_weight: float = 0.0) -> Tensor:
    """Focal and dice loss, 20 to 1, of each mask: `[P, M, L, L]` logits against `[P, L, L]` coverages in 0..1.

    Targets are coverages, not 0 or 1, so that a logit of zero lies on an object's edge, between pixels. `edge_weight`
    is the weight of a third term, the cross entropy within two pixels of the edge: the focal loss is small as soon as
    a logit's sign is right, which leaves masks soft.

    Returns:
        `[P, M]`.
    """
    targets = targets[:, None]
    near = edges(targets) if edge_weight else targets
    targets = targets.expand_as(logits)
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    focal = ((probability - targets).abs() ** _GAMMA * entropy).mean((2, 3))
    overlap = (probability * targets).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + targets.sum((2, 3)) + 1)
    loss = _FOCAL_WEIGHT * focal + _DICE_WEIGHT * dice
    if edge_weight:
        loss = loss + edge_weight * (near * entropy).sum((2, 3)) / (near.sum((2, 3)) + 1)
    return loss


@torch.no_grad()
def edges(targets: Tensor) -> Tensor:
    """1 within two pixels of where coverages `[P, M, L, L]` change, else 0."""
    most = F.max_pool2d(targets, 5, 1, 2)
    least = -F.max_pool2d(-targets, 5, 1, 2)
    return (most - least > 0.5).to(targets.dtype)


@torch.no_grad()
def true_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of each mask, `[P, M, L, L]` logits against `[P, L, L]` coverages: `[P, M]`."""
    predicted, actual = logits > 0, (targets > 0.5)[:, None]
    intersection = (predicted & actual).sum((2, 3))
    return intersection / (predicted | actual).sum((2, 3)).clamp(min=1)
