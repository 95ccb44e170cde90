"""SAM's image encoder with a convolutional trunk in the place of its patch embedding.

What things look like is the trunk's to know, which can be pretrained on other tasks. Its features of strides 32 and 16
are added to those of stride 8, one token each; from there on it is SAM's encoder (`image_encoder_vit`) with fewer
blocks. It has no position table: relative positions and the zeros around the trunk's convolutions say where a token
is.
"""

from __future__ import annotations

from torch import Tensor, nn

from samrt_export.models.common import LayerNorm2d
from samrt_export.models.config import ConvVitConfig
from samrt_export.models.image_encoder_vit import Block
from samrt_export.models.mbconv import OUTPUTS, Trunk

TOKEN_STRIDE = 8


class ConvViT(nn.Module):
    """Image to embedding: float `[B, 3, S, S]`, normalised and padded, to `[B, out_chans, S/8, S/8]`."""

    def __init__(self, config: ConvVitConfig) -> None:
        super().__init__()
        self.config = config
        vit = config.vit
        fine, middle, coarse = (config.trunk.widths[stage] for stage in OUTPUTS)
        self.trunk = Trunk(config.trunk)
        self.from_coarse = nn.ConvTranspose2d(coarse, middle, 2, 2)
        self.from_middle = nn.ConvTranspose2d(middle, vit.embed_dim, 2, 2)
        self.from_fine = nn.Conv2d(fine, vit.embed_dim, 1)
        self.norm = nn.LayerNorm(vit.embed_dim, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(
                vit.embed_dim,
                vit.head_dim,
                vit.mlp_dim,
                vit.grid,
                window_size=0 if index in vit.global_blocks else vit.window_size,
            )
            for index in range(vit.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(vit.embed_dim, vit.out_chans, 1, bias=False),
            LayerNorm2d(vit.out_chans),
            nn.Conv2d(vit.out_chans, vit.out_chans, 3, padding=1, bias=False),
            LayerNorm2d(vit.out_chans),
        )

    def forward(self, image: Tensor) -> Tensor:
        fine, middle, coarse = self.trunk(image.to(self.norm.weight.dtype))
        x = self.from_fine(fine) + self.from_middle(middle + self.from_coarse(coarse))
        x = self.norm(x.permute(0, 2, 3, 1))
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))
