"""Small models with seeded random weights, at scales where every part of the network matters to the result."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from samrt_export.models.config import ConvVitConfig, DecoderConfig, TinyVitConfig, TrunkConfig, VitConfig
from samrt_export.models.conv_vit import ConvViT
from samrt_export.models.image_encoder_vit import Attention, ImageEncoderViT
from samrt_export.models.mbconv import Trunk
from samrt_export.models.sam import Sam
from samrt_export.models.tiny_vit import TinyViT

# Windows of 5 on a 16x16 grid: the last ones are padded.
SMALL_VIT = VitConfig(
    image_size=256,
    patch_size=16,
    embed_dim=64,
    depth=4,
    head_dim=16,
    mlp_dim=128,
    out_chans=64,
    window_size=5,
    global_blocks=(1, 3),
)
# The plugin's kernels have heads of 64 and 80.
PLUGIN_VIT = replace(SMALL_VIT, embed_dim=128, head_dim=64, depth=2, global_blocks=(1,))
# Of every released SAM.
RELEASED_DECODER = DecoderConfig(256, 1024, 64, 16, 2, 2048, 4, 256, 3)
SMALL_TINY_VIT = TinyVitConfig(
    image_size=256,
    embed_dims=(8, 16, 16, 32),
    depths=(1, 1, 2, 1),
    num_heads=(0, 2, 4, 2),
    window_sizes=(0, 7, 14, 7),
    out_chans=64,
)
# Windows of 5 on a 16x16 grid.
SMALL_CONV_VIT = ConvVitConfig(
    TrunkConfig(stem=8, widths=(8, 8, 8, 12, 16, 16), depths=(1, 2, 1, 2, 1, 2)),
    VitConfig(
        image_size=128,
        patch_size=8,
        embed_dim=32,
        depth=3,
        head_dim=16,
        mlp_dim=64,
        out_chans=32,
        window_size=5,
        global_blocks=(1,),
    ),
)


def decoder_for(embed_dim: int, image_size: int, embedding_size: int) -> DecoderConfig:
    """A decoder of the released ones' shape, but for its narrow MLPs."""
    return DecoderConfig(
        embed_dim=embed_dim,
        image_size=image_size,
        embedding_size=embedding_size,
        mask_in_chans=16,
        depth=2,
        mlp_dim=128,
        num_mask_tokens=4,
        iou_head_hidden_dim=64,
        iou_head_depth=3,
    )


def vit_decoder(config: VitConfig = SMALL_VIT) -> DecoderConfig:
    return decoder_for(config.out_chans, config.image_size, config.grid)


def vit_state(config: VitConfig = SMALL_VIT, seed: int = 0, decoder: DecoderConfig | None = None) -> dict[str, Tensor]:
    """The state dict of a SAM with a ViT encoder; without a `decoder`, that of `vit_decoder`."""
    with torch.device("meta"):
        sam = Sam(ImageEncoderViT(config), decoder or vit_decoder(config))
    return seeded_state(sam, seed)


def tiny_vit_state(config: TinyVitConfig = SMALL_TINY_VIT, seed: int = 0) -> dict[str, Tensor]:
    """The state dict of a LiteMedSAM."""
    with torch.device("meta"):
        sam = Sam(TinyViT(config), decoder_for(config.out_chans, config.image_size, config.image_size // 4))
    return seeded_state(sam, seed)


def conv_vit_state(
    config: ConvVitConfig = SMALL_CONV_VIT, seed: int = 0, decoder: DecoderConfig | None = None
) -> dict[str, Tensor]:
    """The state dict of a SAM whose encoder has a trunk; without a `decoder`, that of `vit_decoder`."""
    with torch.device("meta"):
        sam = Sam(ConvViT(config), decoder or vit_decoder(config.vit))
    return seeded_state(sam, seed)


def released_trunk() -> dict[str, Tensor]:
    """Seeded weights under the released names, in the shapes of `SMALL_CONV_VIT`'s trunk."""
    config = SMALL_CONV_VIT.trunk
    with torch.device("meta"):
        ours = Trunk(config).state_dict()
    shapes, number = {"_conv_stem.weight": ours["stem.weight"], "_bn0": ours["stem.bias"]}, 0
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            for norm, part in enumerate(("expand", "depthwise", "project")):
                if f"stages.{stage}.{block}.{part}.weight" in ours:
                    shapes[f"_blocks.{number}._{part}_conv.weight"] = ours[f"stages.{stage}.{block}.{part}.weight"]
                    shapes[f"_blocks.{number}._bn{norm}"] = ours[f"stages.{stage}.{block}.{part}.bias"]
            number += 1
    parts = ("weight", "bias", "running_mean", "running_var")
    whole = {f"{name}.{part}": like for name, like in shapes.items() if "_bn" in name for part in parts}
    convolutions = {name: like for name, like in shapes.items() if "_conv" in name}
    return {name: _values(name, like, 5, "cpu") for name, like in {**whole, **convolutions}.items()}


def seeded_checkpoint(
    path: Path, config: VitConfig = SMALL_VIT, seed: int = 0, decoder: DecoderConfig | None = None
) -> Path:
    """Write the state dict of a SAM with a ViT encoder, as Meta's checkpoints are written."""
    torch.save(vit_state(config, seed, decoder), path)
    return path


def seeded_state(module: nn.Module, seed: int, device: str = "cpu") -> dict[str, Tensor]:
    """Random values for a module's parameters and buffers; on a device each depends on name, shape and seed alone."""
    return {name: _values(name, tensor, seed, device) for name, tensor in module.state_dict().items()}


def seeded_attention(head_dim: int, heads: int, grid: int, window: int) -> Attention:
    """One attention layer of a ViT encoder."""
    module = Attention(heads * head_dim, head_dim, grid, window)
    module.load_state_dict(seeded_state(module, seed=4))
    return module.eval().requires_grad_(False)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normally distributed numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _values(name: str, like: Tensor, seed: int, device: str) -> Tensor:
    if not like.is_floating_point():
        return torch.ones(like.shape, dtype=like.dtype, device=device)
    generator = torch.Generator(device).manual_seed(zlib.crc32(name.encode()) + seed)
    noise = torch.randn(like.shape, generator=generator, device=device)
    if name.endswith("running_var"):
        return 0.5 + noise.abs()
    if "rel_pos" in name:  # wide enough to decide where a query looks
        return 3 * noise / like.shape[-1] ** 0.5
    embeddings = ("pos_embed", "point_embed", "iou_token.", "mask_tokens.", "_embed.", "gaussian", "attention_biases")
    if any(part in name for part in embeddings):
        return noise
    if like.ndim == 1:
        return _offset(name) + 0.1 * noise
    return noise / like[0].numel() ** 0.5


def _offset(name: str) -> float:
    if "hypernetworks" in name and name.endswith("layers.2.bias"):
        # Lifts the logits off zero, around which a random mask has far more of its pixels than a trained one.
        return 0.3
    return 1.0 if name.endswith("weight") else 0.0
