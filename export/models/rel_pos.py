"""Decomposed relative position (reference `get_rel_pos`)."""

from __future__ import annotations

import torch
from torch import Tensor


def rel_pos_table(rel_pos: Tensor) -> Tensor:
    """`[2*side-1, d]` parameters to `[side, side, d]`: entry (q, k) is the embedding of the offset q - k."""
    side = (rel_pos.shape[0] + 1) // 2
    position = torch.arange(side)
    return rel_pos[position[:, None] - position + side - 1]
