"""LiteMedSAM's image encoder, with the parameter names of its checkpoint.

Source: TinyViT (arXiv:2207.10666) as MobileSAM and LiteMedSAM adapt it. For inference only: no dropout, no stochastic
depth. Two things differ from TinyViT for classification: the patch embedding keeps the image's resolution (1x1
convolutions), and the last merging keeps its input's, so that an image of 256 pixels becomes 64x64 tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samrt_export.models.common import LayerNorm2d, softmax
from samrt_export.models.config import TinyVitConfig
from samrt_export.models.windows import partition, unpartition

_CONV_EXPANSION = 4
_MLP_RATIO = 4


class ConvNorm(nn.Module):
    """Convolution that keeps the resolution (but for its stride), then batch norm."""

    def __init__(self, in_chans: int, out_chans: int, kernel_size: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(in_chans, out_chans, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_chans)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.c(x))
        return out


class PatchEmbed(nn.Module):
    """`[B, 3, S, S]` to `[B, dim, S, S]`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, dim // 2), nn.GELU(), ConvNorm(dim // 2, dim))

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.seq(image)
        return out


class ConvBlock(nn.Module):
    """Inverted bottleneck (MBConv) on `[B, C, H, W]`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = _CONV_EXPANSION * dim
        self.conv1 = ConvNorm(dim, hidden)
        self.conv2 = ConvNorm(hidden, hidden, kernel_size=3, groups=hidden)
        self.conv3 = ConvNorm(hidden, dim)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.conv1(x))
        out = self.act(self.conv2(out))
        merged: Tensor = self.act(self.conv3(out) + x)
        return merged


class PatchMerging(nn.Module):
    """`[B, C, H, W]` to `[B, out_dim, H/stride, W/stride]`."""

    def __init__(self, dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, out_dim)
        self.conv2 = ConvNorm(out_dim, out_dim, kernel_size=3, stride=stride, groups=out_dim)
        self.conv3 = ConvNorm(out_dim, out_dim)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(self.act(self.conv2(self.act(self.conv1(x)))))
        return out


class Attention(nn.Module):
    """Multi-head attention within windows, with a learned bias per head and distance (|dy|, |dx|)."""

    bias_index: Tensor

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window_size**2))
        # On the CPU whatever the default device: it is computed, so no checkpoint can fill it in later.
        position = torch.arange(window_size**2, device="cpu")
        row, column = position // window_size, position % window_size
        distance = (row[:, None] - row).abs() * window_size + (column[:, None] - column).abs()
        self.register_buffer("bias_index", distance.flatten(), persistent=False)

    def forward(self, windows: Tensor) -> Tensor:
        """`[windows, w, w, C]`, not normalised, to the same shape."""
        _, height, width, dim = windows.shape
        area = height * width
        # Unlike in SAM, q, k and v lie together per head: [windows, heads, w*w, 3d].
        qkv = self.qkv(self.norm(windows)).reshape(-1, area, self.num_heads, 3 * self.head_dim)
        q, k, v = qkv.permute(0, 2, 1, 3).split(self.head_dim, dim=-1)
        bias = self.attention_biases.index_select(1, self.bias_index).reshape(self.num_heads, area, area)
        scores = (q * self.scale) @ k.transpose(-2, -1) + bias
        # [windows, heads, w*w, d] -> [windows, w, w, C]
        out: Tensor = self.proj((softmax(scores) @ v).permute(0, 2, 1, 3).reshape(-1, height, width, dim))
        return out


class Mlp(nn.Module):
    """LayerNorm and two linear layers over the last axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, _MLP_RATIO * dim)
        self.fc2 = nn.Linear(_MLP_RATIO * dim, dim)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(self.norm(x))))
        return out


class AttentionBlock(nn.Module):
    """Windowed attention, a depthwise convolution, an MLP, on `[B, H, W, C]`."""

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.attn = Attention(dim, num_heads, window_size)
        self.local_conv = ConvNorm(dim, dim, kernel_size=3, groups=dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        # The zeros that fill the last windows go through the attention's LayerNorm: they become its bias and take part.
        windows = self.attn(partition(x, self.window_size))
        x = x + unpartition(windows, self.window_size, x.shape[1])
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = x + self.mlp(x)
        return out


class ConvStage(nn.Module):
    """The first stage: `[B, C, H, W]` throughout."""

    def __init__(self, dim: int, depth: int, downsample: PatchMerging) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ConvBlock(dim) for _ in range(depth)))
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.downsample(self.blocks(x))
        return out


class AttentionStage(nn.Module):
    """`[B, C, H, W]` in and out; its blocks work channels-last."""

    def __init__(self, blocks: list[AttentionBlock], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """Image to embedding: float `[B, 3, S, S]`, scaled to 0..1 and padded, to `[B, out_chans, S/4, S/4]` (four stages).

    The first entry of the configuration's `num_heads` and `window_sizes` is unused: the first stage is convolutional.
    """

    # Half precision rounds a pixel by up to 5e-4 of it, and the released weights' first batch norm multiplies by up to
    # 110. Patches in float32 took the export's own scene from a mask IoU of 0.9950 to 0.9984, in half arithmetic.
    float32_parts = ("patch_embed",)

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__()
        self.config = config
        dims, last = config.embed_dims, len(config.embed_dims) - 1
        self.patch_embed = PatchEmbed(dims[0])
        merging = [PatchMerging(dims[i], dims[i + 1], stride=1 if i == last - 1 else 2) for i in range(last)]
        self.layers = nn.ModuleList([ConvStage(dims[0], config.depths[0], merging[0])])
        for i in range(1, last + 1):
            blocks = [
                AttentionBlock(dims[i], config.num_heads[i], config.window_sizes[i]) for _ in range(config.depths[i])
            ]
            self.layers.append(AttentionStage(blocks, merging[i] if i < last else None))
        self.neck = nn.Sequential(
            nn.Conv2d(dims[-1], config.out_chans, 1, bias=False),
            LayerNorm2d(config.out_chans),
            nn.Conv2d(config.out_chans, config.out_chans, 3, padding=1, bias=False),
            LayerNorm2d(config.out_chans),
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image).to(self.neck[0].weight.dtype)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.neck(x)
        return out
