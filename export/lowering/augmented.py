"""The lowering for fused attention kernels that take no bias: the bias becomes part of query and key.

    Q' = [scale * q, rel_h, rel_w]     K' = [k, onehot(kh), onehot(kw)]     Q'.K' = scale*q.k + rel_h[kh] + rel_w[kw]

exactly, with nothing of size S x S in memory. TensorRT fuses attention only where the value is as wide as query and
key, and at some widths only, so all three are padded with zeros to one width and the result is cut.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samrt_export.models.common import linear
from samrt_export.models.image_encoder_vit import Attention
from samrt_export.models.rel_pos import rel_pos_table
from samrt_export.models.windows import partition, unpartition

WIDTH_MULTIPLE = 16


class AugmentedAttention(nn.Module):
    """`Attention` over augmented queries and keys."""

    rel_h_table: Tensor
    rel_w_table: Tensor
    position: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = attention.num_heads, attention.head_dim, attention.scale
        self.grid, self.window_size, self.side = attention.grid, attention.window_size, attention.side
        self.qkv, self.proj = attention.qkv, attention.proj
        # [side, d, side]: per query row (column) the projection of a query to its terms.
        self.register_buffer("rel_h_table", rel_pos_table(attention.rel_pos_h).transpose(1, 2).contiguous())
        self.register_buffer("rel_w_table", rel_pos_table(attention.rel_pos_w).transpose(1, 2).contiguous())
        width = self.head_dim + 2 * self.side
        self.width = -(-width // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
        index = torch.arange(self.side**2)
        position = [F.one_hot(index // self.side, self.side), F.one_hot(index % self.side, self.side)]
        position.append(torch.zeros(self.side**2, self.width - width, dtype=torch.int64))
        self.register_buffer("position", torch.cat(position, dim=1).float())

    def forward(self, x: Tensor) -> Tensor:
        """`[B, H, W, C]` normalised tokens to `[B, H, W, C]`."""
        if self.window_size:
            x = partition(x, self.window_size)
        batch, side, _, _ = x.shape
        qkv = linear(self.qkv, x).reshape(batch, side * side, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        grid_q = q.unflatten(2, (side, side))
        rel_h = (grid_q @ self.rel_h_table).flatten(2, 3)
        rel_w = (grid_q.transpose(2, 3) @ self.rel_w_table).transpose(2, 3).flatten(2, 3)
        fill = self.width - self.head_dim
        augmented_q = F.pad(torch.cat([q * self.scale, rel_h, rel_w], dim=-1), (0, fill - 2 * side))
        augmented_k = torch.cat([k, self.position.expand(batch, self.num_heads, -1, -1)], dim=-1)
        weights = (augmented_q @ augmented_k.transpose(-2, -1)).softmax(dim=-1)
        out = (weights @ F.pad(v, (0, fill)))[..., : self.head_dim]
        out = out.permute(0, 2, 1, 3).reshape(batch, side, side, -1)
        if self.window_size:
            out = unpartition(out, self.window_size, self.grid)
        return linear(self.proj, out)
