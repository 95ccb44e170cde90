"""SAM's prompt encoder, with the parameter names of Meta's checkpoints (reference `PromptEncoder`)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samrt_export.models.common import LayerNorm2d
from samrt_export.models.config import DecoderConfig

NUM_POINT_KINDS = 4  # background, foreground, first and second box corner: the labels 0 to 3


class RandomPositionEncoding(nn.Module):
    """Fourier features of a position (arXiv:2006.10739) with a fixed random matrix from the checkpoint."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(2, embed_dim // 2))

    def forward(self, position: Tensor) -> Tensor:
        """`[..., 2]` (x, y) in 0..1 of the padded image to `[..., embed_dim]`."""
        # Always in float32: half precision would move a point by half a pixel.
        angle = 2 * math.pi * ((2 * position.float() - 1) @ self.positional_encoding_gaussian_matrix.float())
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def of_grid(self, side: int) -> Tensor:
        """The encoding of the centres of a `side` x `side` grid: `[side * side, embed_dim]`, row by row."""
        centres = (torch.arange(side, device=self.positional_encoding_gaussian_matrix.device) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self(torch.stack([x, y], dim=-1).reshape(side * side, 2))


class PromptEncoder(nn.Module):
    """Points, boxes and masks to tokens."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        dim, hidden = config.embed_dim, config.mask_in_chans
        self.image_size = config.image_size
        self.embedding_size = config.embedding_size
        self.pe_layer = RandomPositionEncoding(dim)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(NUM_POINT_KINDS))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, hidden // 4, 2, 2),
            LayerNorm2d(hidden // 4),
            nn.GELU(),
            nn.Conv2d(hidden // 4, hidden, 2, 2),
            LayerNorm2d(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def embed_points(self, coords: Tensor, labels: Tensor) -> Tensor:
        """`[P, N, 2]` (x, y) pixels of the padded input and int `[P, N]` labels to `[P, N, embed_dim]`, float32."""
        position = self.pe_layer((coords + 0.5) / self.image_size)  # to the pixel's centre
        kinds = torch.cat([kind.weight for kind in (self.not_a_point_embed, *self.point_embeddings)])
        # Padding (-1) has no position, only its own embedding.
        is_point = (labels >= 0).to(position.dtype)[..., None]
        return position * is_point + F.embedding(labels.long() + 1, kinds.float())

    def embed_mask(self, mask: Tensor, has_mask: Tensor) -> Tensor:
        """`[P, 1, L, L]` logits and `[P]` flags to `[P, h*w, embed_dim]` tokens; where the flag is 0, "no mask"."""
        tokens = self.mask_downscaling(mask).flatten(2).transpose(1, 2)
        return torch.where(has_mask[:, None, None] > 0.5, tokens, self.no_mask_embed.weight)
