"""SAM with a ViT encoder: ViT-B, ViT-L, ViT-H and every other size of the same shape.

Source: Segment Anything (arXiv:2304.02643), reference `build_sam`; other input sizes as in ViTDet's code (detectron2
`get_abs_pos`).
"""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from samrt.bundle.contract import Normalization
from samrt.errors import BundleError
from samrt_export.families.loading import (
    LoadedModel,
    State,
    load_strictly,
    read_decoder,
    sam_contract,
    shape_of,
    table_of,
)
from samrt_export.families.vit_blocks import (
    ENCODER,
    LARGEST_WINDOW,
    PIXEL_MEAN,
    PIXEL_STD,
    check_image_size,
    read_blocks,
    rel_pos,
    rel_pos_rows,
    resized_rel_pos,
)
from samrt_export.models.config import VitConfig
from samrt_export.models.image_encoder_vit import ImageEncoderViT
from samrt_export.models.sam import Sam

FAMILY = "sam"
DESCRIPTION = "SAM with a ViT encoder (vit_b, vit_l, vit_h or any other size)"

RELEASED = {
    "vit_b": VitConfig(1024, 16, 768, 12, 64, 3072, 256, 14, (2, 5, 8, 11)),
    "vit_l": VitConfig(1024, 16, 1024, 24, 64, 4096, 256, 14, (5, 11, 17, 23)),
    "vit_h": VitConfig(1024, 16, 1280, 32, 80, 5120, 256, 14, (7, 15, 23, 31)),
}

_POS_EMBED = f"{ENCODER}.pos_embed"
_PATCHES = f"{ENCODER}.patch_embed.proj.weight"
_MIN_GRID = 4
# 2048 pixels at patches of 16. Global attention grows with the fourth power of the grid: a layer and head of this one
# have a gigabyte of scores, which the comparison with the reference holds at once.
_MAX_GRID = 128


def matches(state: State) -> bool:
    """Whether these are a ViT encoder's parameter names."""
    return _PATCHES in state and _POS_EMBED in state


def build(state: State, image_size: int | None) -> LoadedModel:
    """The model at the checkpoint's own input size, or resized to another.

    Raises:
        BundleError: a parameter is missing, unexpected or of a shape that fits none of its neighbours, or `image_size`
            is not a multiple of the patch size within 4 to 128 patches.
    """
    trained = read_config(state)
    side = trained.image_size if image_size is None else image_size
    patch = trained.patch_size
    check_image_size(side, patch, _MIN_GRID * patch, _MAX_GRID * patch, multiple_of="the patch size ")
    config = replace(trained, image_size=side)
    decoder = read_decoder(state, config.out_chans, config.image_size, config.grid)
    sam = load_strictly(
        lambda: Sam(ImageEncoderViT(config), decoder), _resized(state, trained, config), _layout(config)
    )
    normalization = Normalization(kind="mean_std", mean=PIXEL_MEAN, std=PIXEL_STD)
    return LoadedModel(FAMILY, variant_of(config), sam, sam_contract(decoder, normalization))


def read_config(state: State) -> VitConfig:
    """The encoder's sizes, read off the parameter shapes.

    Raises:
        BundleError: a parameter that tells a size is missing, or contradicts another.
    """
    embed_dim, _, patch_size, _ = shape_of(state, _PATCHES, None, 3, None, None)
    _, grid, _, _ = shape_of(state, _POS_EMBED, 1, None, None, embed_dim)
    depth, head_dim, mlp_dim, out_chans = read_blocks(state, embed_dim)
    window_size, global_blocks = _read_windows(state, depth, grid)
    return VitConfig(
        image_size=grid * patch_size,
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=depth,
        head_dim=head_dim,
        mlp_dim=mlp_dim,
        out_chans=out_chans,
        window_size=window_size,
        global_blocks=global_blocks,
    )


def variant_of(config: VitConfig) -> str:
    """`vit_b`, `vit_l`, `vit_h` at any input size, else the width and depth, such as `vit_d192x6`."""
    for name, released in RELEASED.items():
        if replace(config, image_size=released.image_size) == released:
            return name
    return f"vit_d{config.embed_dim}x{config.depth}"


def _read_windows(state: State, depth: int, grid: int) -> tuple[int, tuple[int, ...]]:
    """The window's side (0: none) and the blocks without one: a table for a side of n tokens has 2n-1 rows."""
    global_rows, window_rows, first_windowed = 2 * grid - 1, 0, ""
    global_blocks = []
    for block in range(depth):
        name, rows = rel_pos(block, "h"), rel_pos_rows(state, block)
        if rows == global_rows:
            global_blocks.append(block)
        elif rows % 2 and window_rows in (0, rows):
            window_rows, first_windowed = rows, first_windowed or name
        else:
            window = f"{window_rows}, as {first_windowed} has" if window_rows else "an odd number"
            raise BundleError(
                f"{name} has {rows} rows: neither {global_rows} (global attention on the {grid}x{grid} grid of "
                f"{_POS_EMBED}) nor that of a window ({window})"
            )
    if window_rows > (2 * max(grid, LARGEST_WINDOW) - 1 if global_blocks else global_rows):
        raise BundleError(
            f"{first_windowed} has {window_rows} rows, those of a grid larger than the {grid}x{grid} of {_POS_EMBED}: "
            "resize both to one grid"
        )
    return (window_rows + 1) // 2, tuple(global_blocks)


def _layout(config: VitConfig) -> str:
    nearest = min(RELEASED, key=lambda name: abs(RELEASED[name].embed_dim - config.embed_dim))
    described = f"a SAM ViT of width {config.embed_dim} and depth {config.depth}"
    if variant_of(config) == nearest:
        return f"{described} ({nearest})"
    released = RELEASED[nearest]
    return f"{described} (the nearest released one is {nearest}: width {released.embed_dim}, depth {released.depth})"


def _resized(state: State, trained: VitConfig, config: VitConfig) -> dict[str, Tensor]:
    """The position tables for another grid."""
    resized = dict(state)
    grid = trained.grid
    if config.grid == grid:
        return resized
    resized[_POS_EMBED] = _resize_pos_embed(table_of(state, _POS_EMBED, 1, grid, grid, trained.embed_dim), config.grid)
    return resized | resized_rel_pos(state, trained, config)


def _resize_pos_embed(table: Tensor, grid: int) -> Tensor:
    # [1, h, w, C]; interpolate wants channels first
    resized = F.interpolate(table.permute(0, 3, 1, 2), size=(grid, grid), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).contiguous()
