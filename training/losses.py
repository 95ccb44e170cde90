"""What training minimises: SAM's losses (arXiv:2304.02643, appendix A, "Losses")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_FOCAL_WEIGHT, _DICE_WEIGHT = 20.0, 1.0
_GAMMA = 2.0


def mask_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Focal and dice loss, 20 to 1, of each mask: `[P, M, L, L]` logits against `[P, L, L]` coverages in 0..1.

    Coverages rather than bits, so that a logit of zero lies where an object's edge does, between pixels.

    Returns:
        `[P, M]`.
    """
    targets = targets[:, None].expand_as(logits)
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    focal = ((probability - targets).abs() ** _GAMMA * entropy).mean((2, 3))
    overlap = (probability * targets).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + targets.sum((2, 3)) + 1)
    return _FOCAL_WEIGHT * focal + _DICE_WEIGHT * dice


@torch.no_grad()
def true_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of each mask, `[P, M, L, L]` logits against `[P, L, L]` coverages: `[P, M]`."""
    predicted, actual = logits > 0, (targets > 0.5)[:, None]
    intersection = (predicted & actual).sum((2, 3))
    return intersection / (predicted | actual).sum((2, 3)).clamp(min=1)
