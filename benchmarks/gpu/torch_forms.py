"""SAM's attention in torch, in the forms that are a fair opponent: all heads at once, fused where it can be.

Each is the mathematics of `samrt_export.models.image_encoder_vit.Attention`, which works head by head to save memory
and would be no opponent on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samrt_export.models.image_encoder_vit import Attention
from samrt_export.models.rel_pos import rel_pos_table
from samrt_export.models.windows import partition, unpartition

# q, k, v [B, heads, S, d] and the terms rel_h, rel_w [B, heads, S, side] to [B, heads, S, d].
Attend = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def materialised(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """As published: scores and bias in memory."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + _bias(rel_h, rel_w)
    return scores.softmax(dim=-1) @ v


def sdpa_bias(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """torch's fused attention with the bias in memory as its mask."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=_bias(rel_h, rel_w))


def sdpa_augmented(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """torch's fused attention with the bias folded into query and key, padded to a multiple of 16."""
    d, side = q.shape[-1], rel_h.shape[-1]
    fill = -(d + 2 * side) % 16
    wide_q = F.pad(torch.cat([q * d**-0.5, rel_h, rel_w], dim=-1), (0, fill))
    index = torch.arange(side * side, device=q.device)
    places = torch.cat([F.one_hot(index // side, side), F.one_hot(index % side, side)], dim=-1).to(q.dtype)
    wide_k = F.pad(torch.cat([k, places.expand(*k.shape[:2], -1, -1)], dim=-1), (0, fill))
    wide_v = F.pad(v, (0, 2 * side + fill))
    return F.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=1.0)[..., :d]


def flex(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """torch's flex_attention, which compiles the bias into the kernel; only for torch.compile."""
    from torch.nn.attention.flex_attention import flex_attention

    side = rel_h.shape[-1]
    rel_h, rel_w = rel_h.contiguous(), rel_w.contiguous()  # buffers that the kernel can read by index

    def with_bias(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + rel_h[b, h, query, key // side] + rel_w[b, h, query, key % side]

    return flex_attention(q, k, v, score_mod=with_bias)  # type: ignore[return-value]


EAGER: dict[str, Attend] = {"materialised": materialised, "sdpa_bias": sdpa_bias, "sdpa_augmented": sdpa_augmented}
# The likely fastest first: the time may run out.
COMPILED: dict[str, Attend] = {
    "sdpa_augmented": sdpa_augmented,
    "materialised": materialised,
    "flex_attention": flex,
    "sdpa_bias": sdpa_bias,
}


class PeerAttention(nn.Module):
    """`Attention` with another way to attend."""

    rel_h_table: Tensor
    rel_w_table: Tensor

    def __init__(self, attention: Attention, attend: Attend) -> None:
        super().__init__()
        self.num_heads, self.head_dim = attention.num_heads, attention.head_dim
        self.grid, self.window_size = attention.grid, attention.window_size
        self.qkv, self.proj, self.attend = attention.qkv, attention.proj, attend
        self.register_buffer("rel_h_table", rel_pos_table(attention.rel_pos_h).detach().contiguous())
        self.register_buffer("rel_w_table", rel_pos_table(attention.rel_pos_w).detach().contiguous())

    def forward(self, x: Tensor) -> Tensor:
        if self.window_size:
            x = partition(x, self.window_size)
        batch, side, _, _ = x.shape
        qkv = self.qkv(x).reshape(batch, side * side, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        grid_q = q.unflatten(2, (side, side))
        rel_h = torch.einsum("bnhwd,hkd->bnhwk", grid_q, self.rel_h_table).flatten(2, 3)
        rel_w = torch.einsum("bnhwd,wkd->bnhwk", grid_q, self.rel_w_table).flatten(2, 3)
        out = self.attend(q, k, v, rel_h, rel_w).permute(0, 2, 1, 3).reshape(batch, side, side, -1)
        if self.window_size:
            out = unpartition(out, self.window_size, self.grid)
        return self.proj(out)


def with_attention(encoder: Any, attend: Attend) -> Any:
    """Replace every attention of `encoder`, in place."""
    for name, module in list(encoder.named_modules()):
        if isinstance(module, Attention):
            encoder.set_submodule(name, PeerAttention(module, attend))
    return encoder


def _bias(rel_h: Tensor, rel_w: Tensor) -> Tensor:
    return (rel_h[..., :, None] + rel_w[..., None, :]).flatten(-2)
