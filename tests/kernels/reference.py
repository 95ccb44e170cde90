"""SAM's attention in float64, straight from its published definition: what the kernels are held against.

Source: Segment Anything (arXiv:2304.02643), reference `Attention`, `add_decomposed_rel_pos`, `window_partition`.
A test holds it against Meta's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tensors:
    """One attention layer's inputs.

    Attributes:
        qkv: [batch, grid_h, grid_w, 3, heads, head_dim], bias included.
        qkv_bias: [3, heads, head_dim]: what the projection makes of the zeros that fill the last windows.
        rel_pos_h: [2 * side_h - 1, head_dim], side_h being the window or grid_h; None with rel_pos_w: no bias.
        rel_pos_w: [2 * side_w - 1, head_dim].
        window: side of a window in tokens; 0: attention over the whole grid.
    """

    qkv: NDArray[Any]
    qkv_bias: NDArray[Any]
    rel_pos_h: NDArray[Any] | None
    rel_pos_w: NDArray[Any] | None
    window: int = 0


@dataclass(frozen=True)
class Truth:
    """Attributes:
    out: [batch, grid_h * grid_w, heads * head_dim].
    largest: the largest magnitude that a part of a score takes on (product, row term, column term), or their sum.
    """

    out: Array
    largest: float


def attention(tensors: Tensors) -> Truth:
    """The layer in float64."""
    qkv = tensors.qkv.astype(np.float64)
    batch, grid_h, grid_w, _, heads, head_dim = qkv.shape
    out = np.empty((batch, grid_h, grid_w, heads * head_dim))
    side_h, side_w = (tensors.window, tensors.window) if tensors.window else (grid_h, grid_w)
    down, across = -(-grid_h // side_h), -(-grid_w // side_w)
    padded = np.empty((batch, down * side_h, across * side_w, 3, heads, head_dim))
    padded[:] = tensors.qkv_bias
    padded[:, :grid_h, :grid_w] = qkv
    largest = 0.0
    for image in range(batch):
        for top in range(0, grid_h, side_h):
            for left in range(0, grid_w, side_w):
                tokens = padded[image, top : top + side_h, left : left + side_w]
                result, magnitude = _attend(tokens, tensors.rel_pos_h, tensors.rel_pos_w)
                inside = out[image, top : top + side_h, left : left + side_w]
                inside[:] = result[: inside.shape[0], : inside.shape[1]]
                largest = max(largest, magnitude)
    return Truth(out.reshape(batch, grid_h * grid_w, heads * head_dim), largest)


def _attend(tokens: Array, rel_pos_h: Array | None, rel_pos_w: Array | None) -> tuple[Array, float]:
    """[side_h, side_w, 3, heads, d], all attending to all, to [side_h, side_w, heads * d]; and the largest score."""
    side_h, side_w, _, heads, head_dim = tokens.shape
    q, k, v = tokens.transpose(2, 3, 0, 1, 4)  # [heads, side_h, side_w, d] each
    # scores[n, h, w, i, j]: head n, the query in row h and column w, the key in row i and column j
    parts = [np.einsum("nhwd,nijd->nhwij", q * head_dim**-0.5, k)]
    if rel_pos_h is not None and rel_pos_w is not None:
        parts.append(np.einsum("nhwd,hid->nhwi", q, _by_offset(rel_pos_h))[:, :, :, :, None])
        parts.append(np.einsum("nhwd,wjd->nhwj", q, _by_offset(rel_pos_w))[:, :, :, None, :])
    scores = sum(parts, np.zeros((heads, side_h, side_w, side_h, side_w)))
    flat = scores.reshape(heads, side_h, side_w, side_h * side_w)
    weights = np.exp(flat - flat.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    out = np.einsum("nhwk,nkd->hwnd", weights, v.reshape(heads, side_h * side_w, head_dim))
    largest = max(float(np.nanmax(np.abs(part), initial=0.0)) for part in (*parts, scores))
    return out.reshape(side_h, side_w, heads * head_dim), largest


def _by_offset(table: NDArray[Any]) -> Array:
    """[2 * side - 1, d] to [side, side, d]: entry (q, k) is the embedding of the offset q - k."""
    side = (len(table) + 1) // 2
    position = np.arange(side)
    return table.astype(np.float64)[position[:, None] - position[None, :] + side - 1]
