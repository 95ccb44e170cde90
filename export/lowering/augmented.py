"""The lowering for fused attention kernels that take no bias: the bias becomes part of query and key.

    Q' = [scale * q, rel_h, rel_w]     K' = [k, onehot(kh), onehot(kw)]     Q'.K' = scale*q.k + rel_h[kh] + rel_w[kw]

exactly, with nothing of size S x S in memory. TensorRT fuses attention only where the value is as wide as query and
key, and at some widths only, so all three are padded with zeros to one width and the result is cut.

It is for global layers. In a window the scores are few: there the dense form, whose bias is a mask that the fused
kernel reads, needs less memory. docs/attention.md has the figures.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samrt_export.models.common import linear, softmax
from samrt_export.models.image_encoder_vit import Attention, head_by_head
from samrt_export.models.rel_pos import rel_pos_table

# Widths above the limit are not fused; below it, every multiple of 8 is. The narrowest needs the least memory.
WIDTH_MULTIPLE, LARGEST_WIDTH = 16, 256


def augment(attention: Attention) -> nn.Module:
    """The layer in the form that fuses with the least memory, which may be the one it has."""
    if attention.window_size or augmented_width(attention) > LARGEST_WIDTH:
        return attention
    return AugmentedAttention(attention)


def augmented_width(attention: Attention) -> int:
    """The width of augmented query, key and value: one entry per key row and key column more than the head's."""
    width = attention.head_dim + 2 * attention.side
    return -(-width // WIDTH_MULTIPLE) * WIDTH_MULTIPLE


class AugmentedAttention(nn.Module):
    """Global `Attention` over augmented queries and keys."""

    rel_h_table: Tensor
    rel_w_table: Tensor
    position: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = attention.num_heads, attention.head_dim, attention.scale
        self.side, self.width = attention.side, augmented_width(attention)
        self.qkv, self.proj = attention.qkv, attention.proj
        # [side, d, side]: per query row (column) the projection of a query to its terms.
        self.register_buffer("rel_h_table", rel_pos_table(attention.rel_pos_h).transpose(1, 2).contiguous())
        self.register_buffer("rel_w_table", rel_pos_table(attention.rel_pos_w).transpose(1, 2).contiguous())
        index = torch.arange(self.side**2)
        rows, columns = F.one_hot(index // self.side, self.side), F.one_hot(index % self.side, self.side)
        position = torch.cat([rows, columns], dim=1).float()
        self.register_buffer("position", F.pad(position, (0, self.width - self.head_dim - 2 * self.side)))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, H, W, C]` normalised tokens to `[B, H, W, C]`."""
        batch, side, _, _ = x.shape
        qkv = linear(self.qkv, x).reshape(batch, side * side, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = head_by_head(self._attend, q, k, v)
        return linear(self.proj, out.permute(0, 2, 1, 3).reshape(x.shape))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`[B, heads, H*W, d]` each, to the same."""
        q, k = self.augmented(q, k)
        weights = softmax(q @ k.transpose(-2, -1))
        return (weights @ F.pad(v, (0, self.width - self.head_dim)))[..., : self.head_dim]

    def augmented(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key `[B, heads, H*W, d]` to `[B, heads, H*W, width]`."""
        batch, heads, _, _ = q.shape
        grid_q = q.unflatten(2, (self.side, self.side))
        rel_h = (grid_q @ self.rel_h_table).flatten(2, 3)
        rel_w = (grid_q.transpose(2, 3) @ self.rel_w_table).transpose(2, 3).flatten(2, 3)
        fill = self.width - self.head_dim - 2 * self.side
        augmented_q = F.pad(torch.cat([q * self.scale, rel_h, rel_w], dim=-1), (0, fill))
        return augmented_q, torch.cat([k, self.position.expand(batch, heads, -1, -1)], dim=-1)
