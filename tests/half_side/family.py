"""The family of `model.py`, as `samrt_export.families` takes one."""

from __future__ import annotations

from half_side.model import HalfSide, HalfSideDecoderGraph, HalfSideEncoder, HalfSideEncoderGraph

from samrt.bundle.contract import IMAGE_ENCODER, MASK_DECODER, Contract, Feature, Geometry, MaskOutputs, Normalization
from samrt_export.families.loading import LoadedModel, State, load_strictly, shape_of
from samrt_export.models.config import DecoderConfig

FAMILY = "half_side"
DESCRIPTION = "the tests' model with two features and five masks"

ENCODER_SIDE, PROMPT_SIDE, GRID, MASKS = 128, 256, 16, 5
_STEM, _MERGE = "image_encoder.stem.weight", "image_encoder.merge.weight"


def matches(state: State) -> bool:
    return "compress_early.weight" in state


def build(state: State, image_size: int | None) -> LoadedModel:
    early_dim, _, _, _ = shape_of(state, _STEM, None, 3, 4, 4)
    embed_dim, _, _, _ = shape_of(state, _MERGE, None, early_dim, 2, 2)
    decoder = DecoderConfig(embed_dim, PROMPT_SIDE, GRID, 16, 2, 64, MASKS, 32, 3)
    contract = Contract(
        Geometry(ENCODER_SIDE, PROMPT_SIDE, 4 * GRID, Normalization("min_max"), resize="square"),
        (Feature("image_embeddings", (embed_dim, GRID, GRID)), Feature("early", (2 * GRID, 2 * GRID, early_dim))),
        MaskOutputs(MASKS, single=0, ambiguous=(1, 2, 3), choice="hq"),
    )
    modules = {IMAGE_ENCODER: HalfSideEncoderGraph, MASK_DECODER: HalfSideDecoderGraph}
    model = load_strictly(
        lambda: HalfSide(HalfSideEncoder(early_dim, embed_dim), decoder, early_dim), state, "the half-side model"
    )
    return LoadedModel(FAMILY, f"half_side_d{embed_dim}", model, contract, modules)
