"""Window partition, padding and the split into heads as one copy of rows, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from samrt_export.models.windows import padded


def gather_index(grid: int, window: int, heads: int) -> Tensor:
    """Where each row of the windows' q, k and v lies in the packed qkv of the grid.

    The packed qkv is seen as `[(grid*grid + 1) * 3 * heads]` rows of head_dim numbers; its last token is a padded one.
    The result, int64 `[3, windows * heads * window^2]`, picks q, k and v of `[windows, heads, window^2]`. With
    `window == grid` the whole grid is the one window.
    """
    full = padded(grid, window)
    token = torch.full((full, full), grid * grid)
    token[:grid, :grid] = torch.arange(grid * grid).reshape(grid, grid)
    windows = full // window
    # [windows, window^2]
    token = token.reshape(windows, window, windows, window).permute(0, 2, 1, 3).reshape(windows**2, window**2)
    which = torch.arange(3)[:, None, None, None]
    head = torch.arange(heads)[:, None]
    return ((token[:, None] * 3 + which) * heads + head).flatten(1)


def scatter_index(grid: int, window: int, heads: int) -> Tensor:
    """Where each row of the grid's output, `[grid*grid, heads]`, lies in the windows' `[windows, heads, window^2]`."""
    windows = padded(grid, window) // window
    y, x = torch.arange(grid)[:, None, None], torch.arange(grid)[None, :, None]
    index = (y // window) * windows + x // window
    index = (index * heads + torch.arange(heads)) * window**2
    return (index + (y % window) * window + x % window).flatten()
