"""SAM's image encoder, with the parameter names of Meta's checkpoints.

Source: Segment Anything (arXiv:2304.02643), reference `ImageEncoderViT`. Tokens are kept as `[B, H, W, C]`; linear
layers see them as one matrix.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from samrt_export.models.common import LayerNorm2d, Mlp, linear, softmax
from samrt_export.models.config import VitConfig
from samrt_export.models.rel_pos import rel_pos_table
from samrt_export.models.windows import partition, unpartition


class Attention(nn.Module):
    """Multi-head attention with decomposed relative position, over the whole grid or in windows.

    The reference form (`dense`): bias and scores are materialised. `samrt_export.lowering` has the others.
    """

    def __init__(self, dim: int, head_dim: int, grid: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = dim // head_dim
        self.head_dim = head_dim
        self.scale = head_dim**-0.5
        self.window_size = window_size  # 0: the whole grid
        self.grid = grid
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * self.side - 1, head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * self.side - 1, head_dim))

    @property
    def side(self) -> int:
        """Tokens along one side of what attends to itself: a window, or the grid."""
        return self.window_size or self.grid

    def forward(self, x: Tensor) -> Tensor:
        """`[B, H, W, C]` normalised tokens to `[B, H, W, C]`.

        scores[q, k] = scale * q.k + q.rel_h[qh, kh] + q.rel_w[qw, kw]; the bias takes the *unscaled* query
        (reference `add_decomposed_rel_pos`).
        """
        if self.window_size:
            x = partition(x, self.window_size)
        batch, side, _, _ = x.shape
        # [B, H, W, 3C] -> q, k, v of [B, heads, H*W, d]
        qkv = linear(self.qkv, x).reshape(batch, side * side, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = head_by_head(self._attend, q, k, v)
        # [B, heads, H*W, d] -> [B, H, W, heads*d]
        out = out.permute(0, 2, 1, 3).reshape(batch, side, side, -1)
        if self.window_size:
            out = unpartition(out, self.window_size, self.grid)
        return linear(self.proj, out)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`[B, heads, H*W, d]` each, to the same."""
        # Per query: one term per key row, one per key column.
        grid_q = q.unflatten(2, (self.side, self.side))
        rel_h = torch.einsum("bnhwd,hkd->bnhwk", grid_q, rel_pos_table(self.rel_pos_h))
        rel_w = torch.einsum("bnhwd,wkd->bnhwk", grid_q, rel_pos_table(self.rel_pos_w))
        bias = (rel_h[..., :, None] + rel_w[..., None, :]).flatten(4).flatten(2, 3)
        return softmax((q * self.scale) @ k.transpose(-2, -1) + bias) @ v


def head_by_head(attend: Callable[[Tensor, Tensor, Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of `[B, heads, N, d]` each; in torch one head at a time, as all scores would not fit into memory."""
    if torch.onnx.is_in_onnx_export():
        return attend(q, k, v)
    heads = zip(*(tensor.split(1, dim=1) for tensor in (q, k, v)), strict=True)
    return torch.cat([attend(*head) for head in heads], dim=1)


class Block(nn.Module):
    """Transformer block: attention and MLP, each after a LayerNorm and around a residual."""

    def __init__(self, dim: int, head_dim: int, mlp_dim: int, grid: int, window_size: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, head_dim, grid, window_size)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, mlp_dim, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + linear(self.mlp, self.norm2(x))


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens: `[B, 3, S, S]` to `[B, H, W, C]`."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).permute(0, 2, 3, 1)


class ImageEncoderViT(nn.Module):
    """Image to embedding: float `[B, 3, S, S]`, normalised and padded, to `[B, out_chans, S/16, S/16]`."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.patch_size, config.embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid, config.grid, config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(
                config.embed_dim,
                config.head_dim,
                config.mlp_dim,
                config.grid,
                window_size=0 if index in config.global_blocks else config.window_size,
            )
            for index in range(config.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(config.embed_dim, config.out_chans, 1, bias=False),
            LayerNorm2d(config.out_chans),
            nn.Conv2d(config.out_chans, config.out_chans, 3, padding=1, bias=False),
            LayerNorm2d(config.out_chans),
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image.to(self.pos_embed.dtype)) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))
