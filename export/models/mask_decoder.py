"""SAM's mask decoder, with the parameter names of Meta's checkpoints (reference `MaskDecoder`)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samrt_export.models.common import LayerNorm2d
from samrt_export.models.config import DecoderConfig
from samrt_export.models.two_way_transformer import TwoWayTransformer


class ReluMlp(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, depth: int) -> None:
        super().__init__()
        dims = [in_dim, *[hidden_dim] * (depth - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class Upscaling(nn.Sequential):
    """Two transposed convolutions that make the image four times as large, in a form without transposes.

    A 2x2 transposed convolution of stride 2 is a matrix product that gives each token its 2x2 descendants. They stay
    beside each other, channels last, and only the finished masks are put in image order.
    """

    def __init__(self, dim: int) -> None:
        # In a Sequential, as the checkpoints' names are its indices.
        first, second = nn.ConvTranspose2d(dim, dim // 4, 2, 2), nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2)
        super().__init__(first, LayerNorm2d(dim // 4), nn.GELU(), second, nn.GELU())

    def forward(self, image: Tensor) -> Tensor:
        """`[P, h*w, C]` to `[P, h*w*2*2*2*2, C/8]`."""
        layers: Any = tuple(self)
        first, norm, _, second, _ = layers
        x = F.gelu(norm.channels_last(self._descendants(image, first)))
        return F.gelu(self._descendants(x, second))

    @staticmethod
    def _descendants(x: Tensor, conv: Any) -> Tensor:
        # weight [C, D, 2, 2] -> [C, 2*2*D]; x [P, S, C] -> [P, S*4, D]
        weight = conv.weight.permute(0, 2, 3, 1).flatten(1)
        return (x @ weight).unflatten(-1, (4, -1)).flatten(1, 2) + conv.bias


class MaskDecoder(nn.Module):
    """Image tokens and prompt tokens to mask logits and predicted IoUs."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.num_mask_tokens = config.num_mask_tokens
        self.embedding_size = config.embedding_size
        self.transformer = TwoWayTransformer(config)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(config.num_mask_tokens, dim)
        self.output_upscaling = Upscaling(dim)
        self.output_hypernetworks_mlps = nn.ModuleList(
            ReluMlp(dim, dim, dim // 8, 3) for _ in range(config.num_mask_tokens)
        )
        self.iou_prediction_head = ReluMlp(
            dim, config.iou_head_hidden_dim, config.num_mask_tokens, config.iou_head_depth
        )

    def forward(self, image: Tensor, image_pe: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """All masks of all prompts; choosing the single mask or the three is the caller's.

        Args:
            image: `[P, h*w, C]` image tokens plus the embedded mask prompt.
            image_pe: `[h*w, C]` position encoding of the grid.
            prompt: `[P, N, C]` embedded points and boxes.

        Returns:
            logits `[P, masks, 4h, 4w]` and predicted IoU `[P, masks]`.
        """
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        output_tokens = output_tokens.expand(prompt.shape[0], -1, -1)
        tokens = torch.cat([output_tokens, prompt], dim=1)
        tokens, image = self.transformer(tokens, image, image_pe, kept=output_tokens.shape[1])
        mask_tokens = tokens[:, 1:]
        weights = torch.stack(
            [mlp(mask_tokens[:, index]) for index, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        masks = self._to_image(weights @ self.output_upscaling(image).transpose(1, 2))
        return masks, self.iou_prediction_head(tokens[:, 0])

    def _to_image(self, masks: Tensor) -> Tensor:
        # [P, M, (y, x, i, j, k, l)] -> [P, M, (y, i, k), (x, j, l)]
        side = self.embedding_size
        masks = masks.unflatten(-1, (side, side, 2, 2, 2, 2)).permute(0, 1, 2, 4, 6, 3, 5, 7)
        return masks.reshape(-1, self.num_mask_tokens, 4 * side, 4 * side)
