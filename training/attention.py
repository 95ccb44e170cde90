"""The encoder's attention for training: fused, with memory that grows with the tokens, not with their square."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samrt_export.models.image_encoder_vit import Attention
from samrt_export.models.rel_pos import rel_pos_table
from samrt_export.models.windows import partition, unpartition


class TrainingAttention(Attention):
    """`Attention`, with the relative position folded into query and key, for torch's fused attention.

    torch's fused attention keeps no scores for the backward pass, and computes no gradient of a bias. The identity is
    that of `samrt_export.lowering.augmented`; here the tables are parameters, and windowed layers have this form too.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`[B, H, W, C]` normalised tokens to `[B, H, W, C]`."""
        if self.window_size:
            x = partition(x, self.window_size)
        batch, side, _, _ = x.shape
        qkv = self.qkv(x).reshape(batch, side * side, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        grid_q = q.unflatten(2, (side, side))
        # [side, d, side]: per query row (column), a matrix that gives the query's term for each key row (column).
        rel_h = (grid_q @ rel_pos_table(self.rel_pos_h).mT).flatten(2, 3)
        rel_w = (grid_q.transpose(2, 3) @ rel_pos_table(self.rel_pos_w).mT).transpose(2, 3).flatten(2, 3)
        wide_q = torch.cat([q * self.scale, rel_h, rel_w], dim=-1)
        wide_k = torch.cat([k, _places(side, k)], dim=-1)
        wide_v = F.pad(v, (0, 2 * side))
        out = F.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=1.0)[..., : self.head_dim]
        out = out.permute(0, 2, 1, 3).reshape(batch, side, side, -1)
        if self.window_size:
            out = unpartition(out, self.window_size, self.grid)
        return self.proj(out)


def _places(side: int, like: Tensor) -> Tensor:
    """The row and the column of each key, one-hot: `[B, heads, side * side, 2 * side]` of ones and zeros."""
    index = torch.arange(side * side, device=like.device)
    one_hot = torch.cat([F.one_hot(index // side, side), F.one_hot(index % side, side)], dim=-1)
    return one_hot.to(like.dtype).expand(*like.shape[:2], -1, -1)


def train_fused(encoder: nn.Module) -> None:
    """Change every attention of `encoder` to this form, in place; its parameters do not change."""
    for module in encoder.modules():
        if type(module) is Attention:
            module.__class__ = TrainingAttention
