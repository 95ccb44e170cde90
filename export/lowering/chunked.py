"""The lowering for ONNX Runtime on a CPU: the dense mathematics, in pieces that stay in the cache.

Attention goes in steps (`stepwise`), so that S x S memory never exists. Windows are gathered straight out of the packed
qkv, row by row: padding, partition and the split into heads are one copy, and qkv is computed on the grid's own tokens
only. The MLP goes in pieces of its hidden layer, which is four times as wide as the tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samrt_export.lowering.stepwise import Steps, attend_stepwise, softmax_with_bias
from samrt_export.lowering.window_index import gather_index, scatter_index
from samrt_export.models.common import Mlp, linear
from samrt_export.models.image_encoder_vit import Attention
from samrt_export.models.rel_pos import rel_pos_table
from samrt_export.models.windows import padded


class ChunkedAttention(nn.Module):
    """`Attention` in steps."""

    gather_q: Tensor
    gather_k: Tensor
    gather_v: Tensor
    scatter: Tensor
    rel_h_table: Tensor
    rel_w_table: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.num_heads, self.head_dim = attention.num_heads, attention.head_dim
        self.grid, self.side = attention.grid, attention.side
        windows = padded(self.grid, self.side) // self.side
        self.has_padding = windows * self.side > self.grid
        # A window's scores are few; those of the whole grid are not, unless it is small.
        self.steps = Steps.plan(self.side, self.num_heads)
        self.stepwise = self.steps.blocks > 1
        self.qkv, self.proj = _with_scaled_keys(attention), attention.proj
        # [side, d, side]: per query row (column) the projection of a query to its terms.
        rel_h = rel_pos_table(attention.rel_pos_h).transpose(1, 2).contiguous()
        rel_w = rel_pos_table(attention.rel_pos_w).transpose(1, 2).contiguous()
        gather = gather_index(self.grid, self.side, self.num_heads)
        scatter = scatter_index(self.grid, self.side, self.num_heads)
        if self.stepwise:
            order = self.steps.order(windows**2 * self.num_heads)
            gather[0], scatter = gather[0, order], order.argsort()[scatter]
            rel_h = rel_h.unflatten(0, (self.steps.blocks, 1, self.steps.rows))
        for name, index in zip(("gather_q", "gather_k", "gather_v"), gather, strict=True):
            self.register_buffer(name, index.contiguous())
        self.register_buffer("scatter", scatter)
        self.register_buffer("rel_h_table", rel_h)
        self.register_buffer("rel_w_table", rel_w)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, H, W, C]` normalised tokens to `[B, H, W, C]`."""
        batch, grid, _, channels = x.shape
        tokens = x.reshape(batch, grid * grid, channels)
        if self.has_padding:
            # One more token of zeros: its qkv is the bias, which is what a window's padding has.
            tokens = F.pad(tokens, (0, 0, 0, 1))
        rows = linear(self.qkv, tokens).reshape(batch, -1, self.head_dim)
        q, k, v = (rows.index_select(1, index) for index in (self.gather_q, self.gather_k, self.gather_v))
        out = (self._global if self.stepwise else self._windows)(q, k, v)
        out = out.reshape(batch, -1, self.head_dim).index_select(1, self.scatter)
        return linear(self.proj, out.reshape(batch, grid, grid, channels))

    def _windows(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = q.reshape(-1, self.side, self.side, self.head_dim)
        k, v = (each.reshape(-1, self.side**2, self.head_dim) for each in (k, v))
        return softmax_with_bias(q.flatten(1, 2) @ k.transpose(1, 2), *self._bias(q)) @ v

    def _global(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        steps = self.steps
        q = q.reshape(-1, steps.blocks, steps.heads, steps.rows, self.side, self.head_dim)
        k, v = (each.reshape(-1, steps.heads, self.side**2, self.head_dim) for each in (k, v))
        return attend_stepwise(q.flatten(3, 4), k, v, *self._bias(q), steps)

    def _bias(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Queries `[..., rows, W, d]` to their terms `[..., rows, W, H]` and `[..., rows, W, W]`."""
        return q @ self.rel_h_table, (q.transpose(-3, -2) @ self.rel_w_table).transpose(-3, -2)


class ChunkedMlp(nn.Module):
    """`Mlp` in pieces of its hidden layer, whose contributions add up in the matrix products themselves."""

    def __init__(self, mlp: Mlp) -> None:
        super().__init__()
        hidden, dim = mlp.lin1.weight.shape
        pieces = max(1, hidden // dim)
        self.bias = mlp.lin2.bias
        self.lin1 = nn.ParameterList(weight.contiguous() for weight in mlp.lin1.weight.chunk(pieces))
        self.bias1 = nn.ParameterList(bias.contiguous() for bias in mlp.lin1.bias.chunk(pieces))
        self.lin2 = nn.ParameterList(weight.contiguous() for weight in mlp.lin2.weight.chunk(pieces, dim=1))
        self.act = mlp.act
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C]` to `[N, C]`."""
        out: Tensor = self.bias
        for weight1, bias1, weight2 in zip(self.lin1, self.bias1, self.lin2, strict=True):
            out = torch.addmm(out, self.act(F.linear(x, weight1, bias1)), weight2.T)
        return out


def _with_scaled_keys(attention: Attention) -> nn.Linear:
    # The softmax scale goes into the keys, as the bias needs the plain query.
    scale = torch.ones(3, 1)
    scale[1] = attention.scale
    qkv = nn.Linear(attention.qkv.in_features, attention.qkv.out_features)
    with torch.no_grad():
        qkv.weight.copy_((attention.qkv.weight.unflatten(0, (3, -1)) * scale[..., None]).flatten(0, 1))
        qkv.bias.copy_((attention.qkv.bias.unflatten(0, (3, -1)) * scale).flatten())
    return qkv.requires_grad_(False)
