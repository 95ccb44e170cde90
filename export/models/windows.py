"""Window partition (reference `window_partition`, `window_unpartition`).

The grid is padded with zeros right and below *after* the LayerNorm, so a padded token's q, k, v are the qkv bias, and
padded keys take part in the softmax.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def padded(grid: int, window: int) -> int:
    """The side of the grid after padding it to whole windows."""
    return -(-grid // window) * window


def partition(x: Tensor, window: int) -> Tensor:
    """`[B, H, W, C]`, H = W, to `[B * windows, window, window, C]`."""
    batch, grid, _, channels = x.shape
    full = padded(grid, window)
    x = F.pad(x, (0, 0, 0, full - grid, 0, full - grid))
    x = x.reshape(batch, full // window, window, full // window, window, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window, window, channels)


def unpartition(x: Tensor, window: int, grid: int) -> Tensor:
    """`[B * windows, window, window, C]` back to `[B, grid, grid, C]`, without the padding."""
    full = padded(grid, window)
    x = x.reshape(-1, full // window, full // window, window, window, x.shape[-1])
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, full, full, x.shape[-1])
    return x[:, :grid, :grid]
