"""samrt's own encoder: an EfficientNet-Lite trunk, then SAM's ViT blocks.

The trunk may start from released weights (`training/efficientnet.py`); the parameter names are samrt's.
"""

from __future__ import annotations

from dataclasses import replace

from samrt.bundle.contract import Normalization
from samrt.errors import BundleError
from samrt_export.families.loading import (
    LoadedModel,
    State,
    count,
    load_strictly,
    read_decoder,
    sam_contract,
    shape_of,
)
from samrt_export.families.vit_blocks import (
    ENCODER,
    LARGEST_WINDOW,
    PIXEL_MEAN,
    PIXEL_STD,
    check_image_size,
    read_blocks,
    rel_pos_rows,
    resized_rel_pos,
)
from samrt_export.models.config import ConvVitConfig, TrunkConfig, VitConfig
from samrt_export.models.conv_vit import TOKEN_STRIDE, ConvViT
from samrt_export.models.mbconv import OUTPUTS, STRIDES
from samrt_export.models.sam import Sam

FAMILY = "conv_vit"
DESCRIPTION = "samrt's encoder of an EfficientNet-Lite trunk and SAM's ViT blocks"

_STEM = f"{ENCODER}.trunk.stem.weight"
# Its coarsest features have a stride of 32; the comparison with the reference holds a global layer's scores at once.
_SIZE_MULTIPLE, _SMALLEST, _LARGEST = 32, 64, 1024


def matches(state: State) -> bool:
    """Whether these are the parameter names of a trunk."""
    return _STEM in state


def build(state: State, image_size: int | None) -> LoadedModel:
    """The model at the checkpoint's own input size, or resized to another.

    Raises:
        BundleError: a parameter is missing, unexpected or of a shape that fits none of its neighbours, or `image_size`
            is not a multiple of 32 within 64 to 1024, or too small for the windows.
    """
    trained = read_config(state)
    side = trained.vit.image_size if image_size is None else image_size
    check_image_size(side, _SIZE_MULTIPLE, _SMALLEST, _LARGEST)
    config = replace(trained, vit=replace(trained.vit, image_size=side))
    window = config.vit.window_size
    if window > max(config.vit.grid, LARGEST_WINDOW):
        raise BundleError(
            f"windows of {window}x{window} cannot be used on the {config.vit.grid}x{config.vit.grid} grid of the image "
            f"size {side}: choose a larger image size"
        )
    decoder = read_decoder(state, config.vit.out_chans, side, config.vit.grid)
    variant = f"conv_vit_d{config.vit.embed_dim}x{config.vit.depth}"
    sam = load_strictly(
        lambda: Sam(ConvViT(config), decoder),
        dict(state) | resized_rel_pos(state, trained.vit, config.vit),
        f"an EfficientNet-Lite trunk before a ViT of width {config.vit.embed_dim} and depth {config.vit.depth}",
    )
    normalization = Normalization(kind="mean_std", mean=PIXEL_MEAN, std=PIXEL_STD)
    return LoadedModel(FAMILY, variant, sam, sam_contract(decoder, normalization))


def read_config(state: State) -> ConvVitConfig:
    """The encoder's sizes, read off the parameter shapes.

    Raises:
        BundleError: a parameter that tells a size is missing, or contradicts another.
    """
    trunk = _read_trunk(state)
    fine = trunk.widths[OUTPUTS[0]]
    embed_dim = shape_of(state, f"{ENCODER}.from_fine.weight", None, fine, 1, 1)[0]
    depth, head_dim, mlp_dim, out_chans = read_blocks(state, embed_dim)
    grid, window, global_blocks = _read_tables(state, depth)
    vit = VitConfig(
        image_size=grid * TOKEN_STRIDE,
        patch_size=TOKEN_STRIDE,
        embed_dim=embed_dim,
        depth=depth,
        head_dim=head_dim,
        mlp_dim=mlp_dim,
        out_chans=out_chans,
        window_size=window,
        global_blocks=global_blocks,
    )
    return ConvVitConfig(trunk, vit)


def _read_trunk(state: State) -> TrunkConfig:
    stages = count(state, f"{ENCODER}.trunk.stages.")
    if stages != len(STRIDES):
        raise BundleError(f"the trunk has {stages} stages, expected {len(STRIDES)}")
    names = [f"{ENCODER}.trunk.stages.{stage}" for stage in range(stages)]
    return TrunkConfig(
        stem=shape_of(state, _STEM, None, 3, 3, 3)[0],
        widths=tuple(shape_of(state, f"{name}.0.project.weight", None, None, 1, 1)[0] for name in names),
        depths=tuple(count(state, f"{name}.") for name in names),
    )


def _read_tables(state: State, depth: int) -> tuple[int, int, tuple[int, ...]]:
    """The grid's side, the window's (0: none) and the blocks without one: a side of n has a table of 2n-1 rows.

    The longest tables are those of the whole grid, as nothing else tells its side.
    """
    rows = [rel_pos_rows(state, block) for block in range(depth)]
    lengths = sorted(set(rows))
    if len(lengths) > 2 or any(length % 2 == 0 for length in lengths):
        raise BundleError(
            f"the tables of relative positions have {', '.join(map(str, lengths))} rows, expected two odd numbers at "
            "most: that of windows and that of the whole grid"
        )
    grid, largest = (lengths[-1] + 1) // 2, _LARGEST // TOKEN_STRIDE
    if grid > largest:
        raise BundleError(
            f"the tables of relative positions have up to {lengths[-1]} rows, those of a {grid}x{grid} grid: expected "
            f"at most {2 * largest - 1}, of {largest}x{largest}"
        )
    global_blocks = tuple(block for block, length in enumerate(rows) if length == lengths[-1])
    window = (lengths[0] + 1) // 2 if len(lengths) == 2 else 0
    return grid, window, global_blocks
