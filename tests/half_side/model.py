"""A model that differs from SAM in all that a bundle's contract can say.

The encoder sees the image stretched to a square of half the prompts' side and returns two features; the decoder takes
both and returns five masks, the last of which is a correction to the others.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samrt_export.models.common import LayerNorm2d
from samrt_export.models.config import DecoderConfig
from samrt_export.models.sam import DecoderGraph, Sam


class HalfSideEncoder(nn.Module):
    """`[B, 3, E, E]` to `[B, C, E/8, E/8]` and, channels last, `[B, E/4, E/4, D]`."""

    def __init__(self, early_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, early_dim, 4, 4)
        self.merge = nn.Conv2d(early_dim, embed_dim, 2, 2)
        self.norm = LayerNorm2d(embed_dim)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        early = F.gelu(self.stem(image))
        return self.norm(self.merge(early)), early.permute(0, 2, 3, 1)


class HalfSide(Sam):
    """SAM's prompt encoder and decoder, and what brings the early feature into it."""

    def __init__(self, encoder: HalfSideEncoder, decoder: DecoderConfig, early_dim: int) -> None:
        super().__init__(encoder, decoder)
        self.compress_early = nn.Linear(4 * early_dim, decoder.embed_dim)


class HalfSideEncoderGraph(nn.Module):
    """`image` to both features, float32 outside, `dtype` inside."""

    def __init__(self, model: Any, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.encoder = model.image_encoder.to(dtype)
        self.dtype = dtype

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features, early = self.encoder(image.to(self.dtype))
        return features.float(), early.float()


class HalfSideDecoderGraph(nn.Module):
    """SAM's decoder on the sum of both features."""

    def __init__(self, model: Any, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.decoder = DecoderGraph(model, dtype)
        self.compress_early = model.compress_early.to(dtype)
        self.dtype = dtype

    def forward(
        self,
        image_embeddings: Tensor,
        early: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        # [1, 2h, 2w, D] -> [1, h, w, 4D] -> [1, C, h, w]
        blocks = early.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 2, 4, 5).flatten(3)
        added = self.compress_early(blocks.to(self.dtype)).float().permute(0, 3, 1, 2)
        return self.decoder(image_embeddings + added, point_coords, point_labels, mask_input, has_mask)
