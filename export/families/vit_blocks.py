"""What families with SAM's ViT blocks share: sizes read off the blocks' parameters, and their tables for another grid.

Source: reference `ImageEncoderViT`; tables of another length as in reference `get_rel_pos`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from samrt.errors import BundleError
from samrt_export.families.loading import State, count, shape_of, table_of
from samrt_export.models.config import VitConfig

ENCODER = "image_encoder"

# Of RGB values in 0..255, as Meta trained it.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

# A window may be larger than a small grid, which is then padded to it.
LARGEST_WINDOW = 32


def read_blocks(state: State, embed_dim: int) -> tuple[int, int, int, int]:
    """Depth, width of a head, width of the MLP, and output channels of blocks that are `embed_dim` wide.

    Raises:
        BundleError: a parameter that tells a size is missing, or contradicts another.
    """
    name = rel_pos(0, "h")
    _, head_dim = shape_of(state, name, None, None)
    if embed_dim % head_dim:
        raise BundleError(
            f"{name} is {head_dim} wide, which does not divide the encoder's width {embed_dim} into heads"
        )
    mlp_dim = shape_of(state, f"{ENCODER}.blocks.0.mlp.lin1.weight", None, embed_dim)[0]
    out_chans = shape_of(state, f"{ENCODER}.neck.0.weight", None, embed_dim, 1, 1)[0]
    return count(state, f"{ENCODER}.blocks."), head_dim, mlp_dim, out_chans


def rel_pos(block: int, axis: str) -> str:
    """The name of a block's table of relative positions along `axis`, "h" or "w"."""
    return f"{ENCODER}.blocks.{block}.attn.rel_pos_{axis}"


def rel_pos_rows(state: State, block: int) -> int:
    """The rows of a block's tables: 2n-1 for attention over a side of n tokens.

    Raises:
        BundleError: the table of heights is missing or no table.
    """
    return shape_of(state, rel_pos(block, "h"), None, None)[0]


def check_image_size(side: int, multiple: int, smallest: int, largest: int, multiple_of: str = "") -> None:
    """Refuse an input size that the encoder cannot take; `multiple_of` says in the message what `multiple` is.

    Raises:
        BundleError: `side` is not a multiple of `multiple` within `smallest` to `largest`.
    """
    if side % multiple or not smallest <= side <= largest:
        raise BundleError(
            f"the image size {side} cannot be used: choose a multiple of {multiple_of}{multiple} from {smallest} to "
            f"{largest}"
        )


def resized_rel_pos(state: State, trained: VitConfig, config: VitConfig) -> dict[str, Tensor]:
    """The tables of global blocks for the grid of `config`, by name; those of windows do not depend on it.

    Raises:
        BundleError: a table is missing, misshapen or not of floating point.
    """
    if config.grid == trained.grid:
        return {}
    names = [rel_pos(block, axis) for block in config.global_blocks for axis in ("h", "w")]
    tables = {name: table_of(state, name, 2 * trained.grid - 1, trained.head_dim) for name in names}
    return {name: _resized(table, 2 * config.grid - 1) for name, table in tables.items()}


def _resized(table: Tensor, rows: int) -> Tensor:
    # [rows, d]
    resized = F.interpolate(table.T[None], size=rows, mode="linear", align_corners=False)
    return resized[0].T.contiguous()
