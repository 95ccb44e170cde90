"""LiteMedSAM: SAM's prompts and masks behind a TinyViT encoder, trained on medical images and box prompts.

Source: LiteMedSAM of MedSAM (arXiv:2304.12306), its `MedSAM_Lite`.
"""

from __future__ import annotations

from math import isqrt

from samrt.bundle.contract import Normalization
from samrt.errors import BundleError
from samrt_export.families.loading import LoadedModel, State, count, load_strictly, read_decoder, sam_contract, shape_of
from samrt_export.models.config import TinyVitConfig
from samrt_export.models.sam import Sam
from samrt_export.models.tiny_vit import TinyViT

FAMILY = "lite_medsam"
DESCRIPTION = "LiteMedSAM (TinyViT encoder with 1x1 patch convolutions)"

_IMAGE_SIZE = 256
_EMBEDDING_SIZE = _IMAGE_SIZE // 4
_LARGEST_WINDOW = 32
_RELEASED = TinyVitConfig(
    image_size=_IMAGE_SIZE,
    embed_dims=(64, 128, 160, 320),
    depths=(2, 2, 6, 2),
    num_heads=(0, 4, 5, 10),
    window_sizes=(0, 7, 14, 7),
    out_chans=256,
)
_ENCODER = "image_encoder"
_PATCHES = f"{_ENCODER}.patch_embed.seq.0.c.weight"


def matches(state: State) -> bool:
    """Whether these are a TinyViT encoder's parameter names, with LiteMedSAM's 1x1 patch convolutions."""
    return _PATCHES in state and tuple(state[_PATCHES].shape[2:]) == (1, 1)


def build(state: State, image_size: int | None) -> LoadedModel:
    """The model at its input size of 256 pixels.

    Raises:
        BundleError: a parameter is missing, unexpected or misshapen, or another `image_size` is asked for.
    """
    if image_size not in (None, _IMAGE_SIZE):
        raise BundleError(
            f"the image size {image_size} cannot be used: LiteMedSAM's encoder has one token per pixel at first and "
            f"was trained at {_IMAGE_SIZE} only; leave the image size out"
        )
    config = read_config(state)
    decoder = read_decoder(state, config.out_chans, _IMAGE_SIZE, _EMBEDDING_SIZE)
    variant = "tiny_vit" if config == _RELEASED else f"tiny_vit_d{config.embed_dims[-1]}x{sum(config.depths)}"
    dims = "/".join(map(str, config.embed_dims))
    sam = load_strictly(lambda: Sam(TinyViT(config), decoder), state, f"LiteMedSAM with a TinyViT of widths {dims}")
    return LoadedModel(FAMILY, variant, sam, sam_contract(decoder, Normalization(kind="min_max")))


def read_config(state: State) -> TinyVitConfig:
    """The encoder's sizes, read off the parameter shapes.

    Raises:
        BundleError: a parameter that tells a size is missing, or contradicts another.
    """
    stages = count(state, f"{_ENCODER}.layers.")
    if stages != len(_RELEASED.depths):
        raise BundleError(f"the TinyViT encoder has {stages} stages, expected {len(_RELEASED.depths)}")
    dims = [shape_of(state, f"{_ENCODER}.patch_embed.seq.2.c.weight", None, None, 1, 1)[0]]
    for stage in range(stages - 1):
        dims.append(shape_of(state, f"{_ENCODER}.layers.{stage}.downsample.conv1.c.weight", None, dims[-1], 1, 1)[0])
    attention = [_read_attention(state, stage, dims[stage]) for stage in range(1, stages)]
    return TinyVitConfig(
        image_size=_IMAGE_SIZE,
        embed_dims=tuple(dims),
        depths=tuple(count(state, f"{_ENCODER}.layers.{stage}.blocks.") for stage in range(stages)),
        num_heads=(0, *(heads for heads, _ in attention)),
        window_sizes=(0, *(window for _, window in attention)),
        out_chans=shape_of(state, f"{_ENCODER}.neck.0.weight", None, dims[-1], 1, 1)[0],
    )


def _read_attention(state: State, stage: int, dim: int) -> tuple[int, int]:
    """Heads and window side of a stage: its bias tables are `[heads, window * window]`."""
    name = f"{_ENCODER}.layers.{stage}.blocks.0.attn.attention_biases"
    heads, distances = shape_of(state, name, None, None)
    window = isqrt(distances)
    # The tables grow with the fourth power of the window: a bound, before a small file claims a large memory.
    if window * window != distances or dim % heads or window > _LARGEST_WINDOW:
        raise BundleError(
            f"{name} has the shape [{heads}, {distances}], expected [heads, window * window] with heads dividing {dim} "
            f"and a window of at most {_LARGEST_WINDOW}"
        )
    return heads, window
