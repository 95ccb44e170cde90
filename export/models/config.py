"""Sizes of the models, all of which can be read off a checkpoint's parameter shapes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VitConfig:
    """SAM's image encoder: a ViT with windowed and global attention (arXiv:2304.02643 appendix A, arXiv:2203.16527)."""

    image_size: int
    patch_size: int
    embed_dim: int
    depth: int
    head_dim: int
    mlp_dim: int
    out_chans: int
    window_size: int  # 0 if every block is global
    global_blocks: tuple[int, ...]

    @property
    def grid(self) -> int:
        """Tokens along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def num_heads(self) -> int:
        return self.embed_dim // self.head_dim


@dataclass(frozen=True)
class TinyVitConfig:
    """LiteMedSAM's image encoder: TinyViT (arXiv:2207.10666) at full resolution in its first stage."""

    image_size: int
    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_sizes: tuple[int, ...]
    out_chans: int


@dataclass(frozen=True)
class TrunkConfig:
    """The first six stages of an EfficientNet-Lite (arXiv:1905.11946)."""

    stem: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]


@dataclass(frozen=True)
class ConvVitConfig:
    """A convolutional trunk, then SAM's image encoder without its patch embedding and position table."""

    trunk: TrunkConfig
    vit: VitConfig


@dataclass(frozen=True)
class DecoderConfig:
    """SAM's prompt encoder and mask decoder."""

    embed_dim: int
    image_size: int
    embedding_size: int
    mask_in_chans: int
    depth: int
    mlp_dim: int
    num_mask_tokens: int
    iou_head_hidden_dim: int
    iou_head_depth: int
    # Cannot be read off the shapes; all released checkpoints have eight.
    num_heads: int = 8
