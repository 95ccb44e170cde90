"""Attention layers of every kind that the kernels take, with seeded inputs, and the published definition in torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from samrt_torch_op import attention
from torch import Tensor

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """One attention layer and what its numbers look like.

    Attributes:
        queries: standard deviation of queries and keys.
        tables: standard deviation of the relative position tables.
        values: largest magnitude of the values.
    """

    name: str
    grid_h: int
    grid_w: int
    window: int = 0
    batch: int = 1
    heads: int = 2
    queries: float = 1.0
    tables: float = 0.2
    values: float = 4.0

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of what attends to itself: a window, or the grid."""
        return (self.window, self.window) if self.window else (self.grid_h, self.grid_w)


# The models' layers, and others as large; numbers at the ends of the formats are in tests/kernels.
CASES = (
    Case("global 64x64", 64, 64),
    Case("windows 14 of 64x64", 64, 64, window=14),
    Case("global 20x24, batch 2", 20, 24, batch=2),
    Case("global 33x9", 33, 9),
    Case("global 17x65", 17, 65),
    Case("global 65x64", 65, 64),
    Case("windows 14 of 20x24, batch 2", 20, 24, window=14, batch=2),
    Case("windows 14 of 33x9", 33, 9, window=14),
    Case("windows 32 of 33x40", 33, 40, window=32),
    Case("one key decides, global 64x64", 64, 64, queries=8.0),
    Case("one key decides, windows 14 of 64x64", 64, 64, window=14, queries=8.0),
    Case("the bias decides, global 64x64", 64, 64, tables=8.0),
    Case("the bias decides, windows 14 of 64x64", 64, 64, window=14, tables=8.0),
    Case("largest values, global 64x64", 64, 64, values=32768.0),
)
# For the host, where a kernel takes a thousand times longer.
SMALL_CASES = (Case("windows 4 of 5x3", 5, 3, window=4, heads=1),)


@dataclass(frozen=True)
class Inputs:
    """What `torch.ops.samrt.attention` takes. Without tables there is no bias."""

    qkv: Tensor
    qkv_bias: Tensor
    rel_pos_h: Tensor | None
    rel_pos_w: Tensor | None
    window: int

    def to(self, dtype: torch.dtype) -> Inputs:
        """The same numbers in another type."""
        tables = (None if table is None else table.to(dtype) for table in (self.rel_pos_h, self.rel_pos_w))
        return Inputs(self.qkv.to(dtype), self.qkv_bias.to(dtype), *tables, self.window)


def make_inputs(case: Case, precision: str, head_dim: int, with_bias: bool, device: str) -> Inputs:
    """Seeded inputs in "fp16" or "bf16"."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    qkv = normal(case.batch, case.grid_h, case.grid_w, 3, case.heads, head_dim)
    qkv_bias = normal(3, case.heads, head_dim)
    for tensor in (qkv[..., :2, :, :], qkv_bias[:2]):
        tensor.mul_(case.queries)
    for tensor in (qkv[..., 2, :, :], qkv_bias[2]):
        tensor.clamp_(-4, 4).mul_(case.values / 4)
    tables = [normal(2 * side - 1, head_dim) * case.tables if with_bias else None for side in case.sides]
    return Inputs(qkv, qkv_bias, *tables, case.window).to(_DTYPES[precision])


def by_kernel(inputs: Inputs, tile: int = -1) -> Tensor:
    """What samrt's kernel makes of it: [B, H, W, heads * d]."""
    return attention(inputs.qkv, inputs.qkv_bias, inputs.rel_pos_h, inputs.rel_pos_w, inputs.window, tile)


def dense(inputs: Inputs) -> Tensor:
    """The published definition in the inputs' own type, scores and bias in memory: [B, H, W, heads * d].

    In float64 it is the truth; in half precision it is what torch makes of it.
    """
    q, k, v = heads_of(inputs)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if inputs.rel_pos_h is not None and inputs.rel_pos_w is not None:
        rel_h, rel_w = rel_pos_terms(q, by_offset(inputs.rel_pos_h), by_offset(inputs.rel_pos_w))
        scores = scores + (rel_h[..., :, None] + rel_w[..., None, :]).flatten(-2)
    return tokens_of(scores.softmax(dim=-1) @ v, inputs)


def heads_of(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v [B * windows, heads, tokens, d]: windows in rows, what they reach past the grid filled with the bias."""
    qkv, window = inputs.qkv, inputs.window
    if window:
        batch, grid_h, grid_w, *rest = qkv.shape
        down, across = -(-grid_h // window), -(-grid_w // window)
        full = inputs.qkv_bias.expand(batch, down * window, across * window, *rest).clone()
        full[:, :grid_h, :grid_w] = qkv
        full = full.unflatten(2, (across, window)).unflatten(1, (down, window)).transpose(2, 3)
        qkv = full.flatten(0, 2)
    q, k, v = qkv.flatten(1, 2).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def rel_pos_terms(q: Tensor, table_h: Tensor, table_w: Tensor) -> tuple[Tensor, Tensor]:
    """q . table for each key row, and for each key column: [B * windows, heads, tokens, side] twice.

    The tables are as `by_offset` gives them; as they depend on the weights alone, nobody is timed with gathering them.
    """
    grid_q = q.unflatten(2, (table_h.shape[0], table_w.shape[0]))
    rel_h = torch.einsum("bnhwd,hkd->bnhwk", grid_q, table_h).flatten(2, 3)
    rel_w = torch.einsum("bnhwd,wkd->bnhwk", grid_q, table_w).flatten(2, 3)
    return rel_h, rel_w


def tokens_of(out: Tensor, inputs: Inputs) -> Tensor:
    """[B * windows, heads, tokens, d] back to [B, H, W, heads * d], without what lies past the grid."""
    batch, grid_h, grid_w = inputs.qkv.shape[:3]
    tokens, window = out.transpose(1, 2).flatten(2), inputs.window
    if not window:
        return tokens.unflatten(1, (grid_h, grid_w))
    down, across = -(-grid_h // window), -(-grid_w // window)
    tokens = tokens.reshape(batch, down, across, window, window, -1).transpose(2, 3)
    return tokens.reshape(batch, down * window, across * window, -1)[:, :grid_h, :grid_w]


def by_offset(table: Tensor) -> Tensor:
    """[2 * side - 1, d] to [side, side, d]: entry (q, k) is the embedding of the offset q - k."""
    side = (table.shape[0] + 1) // 2
    position = torch.arange(side, device=table.device)
    return table[position[:, None] - position + side - 1]
