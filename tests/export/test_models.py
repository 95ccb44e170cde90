"""The torch modules compute what Meta's do, with the same weights."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracle import meta_sam, segment_anything
from seeded import SMALL_VIT, seeded_state, vit_decoder, vit_state
from torch import Tensor, nn

from samrt.bundle.precisions import PRECISIONS
from samrt.prompts import decoder_inputs, read_prompts
from samrt_export.checkpoint import Checkpoint
from samrt_export.families import load_model
from samrt_export.models.config import VitConfig
from samrt_export.models.sam import DecoderGraph, EncoderGraph, Sam
from samrt_export.models.two_way_transformer import TwoWayTransformer

BOUND = PRECISIONS["fp32"].tolerance.embedding_relative_l2
SIZE, LOW_RES = SMALL_VIT.image_size, 4 * SMALL_VIT.grid


def relative_l2(value: Tensor, truth: Tensor) -> float:
    assert value.shape == truth.shape
    value, truth = value.detach().double(), truth.detach().double()
    return float((value - truth).norm() / truth.norm())


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ours(state: dict[str, Tensor], image_size: int | None = None) -> Sam:
    return load_model(Checkpoint(Path("seeded.pth"), state, sha256="0" * 64, bytes=0), image_size=image_size).sam


# Image encoder


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(SMALL_VIT, id="padded windows"),
        pytest.param(replace(SMALL_VIT, window_size=4), id="windows that fit"),
        pytest.param(replace(SMALL_VIT, image_size=64), id="window larger than the grid"),
        pytest.param(replace(SMALL_VIT, window_size=0, global_blocks=(0, 1, 2, 3)), id="global only"),
        pytest.param(replace(SMALL_VIT, global_blocks=()), id="windows only"),
        pytest.param(replace(SMALL_VIT, embed_dim=60, head_dim=20, mlp_dim=100, out_chans=32), id="three heads of 20"),
        pytest.param(replace(SMALL_VIT, embed_dim=80, head_dim=80, image_size=160, patch_size=8), id="one head of 80"),
    ],
)
def test_image_encoder(config: VitConfig) -> None:
    state, images = vit_state(config), normal(2, 3, config.image_size, config.image_size)
    expected = meta_sam(state, config, vit_decoder(config)).image_encoder(images)
    assert relative_l2(EncoderGraph(ours(state))(images), expected) <= BOUND


@pytest.mark.parametrize("image_size", [128, 400])
def test_image_encoder_at_another_size(image_size: int) -> None:
    """Meta's attention resizes the tables of relative position by itself; the absolute ones are resized for it."""
    state, config = vit_state(), replace(SMALL_VIT, image_size=image_size)
    sam = ours(state, image_size)
    meta = meta_sam(sam.state_dict(), config, vit_decoder(config))
    for index in SMALL_VIT.global_blocks:
        attention = meta.image_encoder.blocks[index].attn
        for name in ("rel_pos_h", "rel_pos_w"):
            trained = state[f"image_encoder.blocks.{index}.attn.{name}"]
            assert trained.shape != getattr(attention, name).shape
            setattr(attention, name, nn.Parameter(trained, requires_grad=False))
    image = normal(1, 3, image_size, image_size)
    assert relative_l2(EncoderGraph(sam)(image), meta.image_encoder(image)) <= BOUND


# Prompt encoder and mask decoder


def points(count: int, *of_each: int) -> dict[str, NDArray[Any]]:
    """`of_each` points for each of `count` prompts, in and out of the image."""
    random = np.random.default_rng(3)
    coords = random.uniform(-20, SIZE + 20, (count, *of_each, 2))
    return {"point_coords": coords, "point_labels": random.integers(0, 2, (count, *of_each))}


BOXES = np.array([[20, 30, 200, 180], [100.5, 3.25, 255, 90], [7, 8, 9, 10]])
MASKS = normal(3, 1, LOW_RES, LOW_RES, seed=5).numpy() * 8
PROMPTS: dict[str, dict[str, NDArray[Any]]] = {
    "point": points(1, 1),
    "points": points(1, 5),
    "64 points": points(1, 64),
    "padded points": {"point_coords": points(1, 3)["point_coords"], "point_labels": np.array([[1, 0, -1]])},
    "box": {"box": BOXES[:1]},
    "points and box": points(1, 2) | {"box": BOXES[:1]},
    "mask": {"mask_input": MASKS[:1]},
    "point and mask": points(1, 1) | {"mask_input": MASKS[:1]},
    "box and mask": {"box": BOXES[:1], "mask_input": MASKS[:1]},
    "nothing": {},
    "batch of points": points(3, 2),
    "batch of boxes": {"box": BOXES},
    "batch of all": points(3, 2) | {"box": BOXES, "mask_input": MASKS},
}


@cache
def decoders() -> tuple[DecoderGraph, Any]:
    state = vit_state()
    return DecoderGraph(ours(state)), meta_sam(state, SMALL_VIT, vit_decoder())


@pytest.mark.parametrize("kind", PROMPTS)
def test_prompts_to_masks(kind: str) -> None:
    decoder, meta = decoders()
    embedding = normal(1, SMALL_VIT.out_chans, SMALL_VIT.grid, SMALL_VIT.grid, seed=1)
    given = PROMPTS[kind]

    prompts = read_prompts(
        given.get("point_coords"), given.get("point_labels"), given.get("box"), given.get("mask_input"), LOW_RES
    )
    inputs = [torch.tensor(array) for array in decoder_inputs(prompts, LOW_RES).values()]
    masks, iou_predictions = decoder(embedding, *inputs)

    tensors = {name: torch.tensor(array).float() for name, array in given.items()}
    with_points = "point_coords" in given
    sparse, dense = meta.prompt_encoder(
        points=(tensors["point_coords"], tensors["point_labels"]) if with_points else None,
        boxes=tensors.get("box"),
        masks=tensors.get("mask_input"),
    )
    image_pe = meta.prompt_encoder.get_dense_pe()
    # All four masks; `forward` would choose among them.
    expected_masks, expected_ious = meta.mask_decoder.predict_masks(embedding, image_pe, sparse, dense)
    assert relative_l2(masks, expected_masks) <= BOUND
    assert relative_l2(iou_predictions, expected_ious) <= BOUND
    # The weights are such that prompts of all kinds matter.
    assert 0.01 < float((masks > 0).float().mean()) < 0.99


def test_every_prompt_matters() -> None:
    """No two kinds of prompt give the same masks, or the comparison above would say nothing about them."""
    decoder, _ = decoders()
    embedding = normal(1, SMALL_VIT.out_chans, SMALL_VIT.grid, SMALL_VIT.grid, seed=1)
    seen: list[Tensor] = []
    for given in PROMPTS.values():
        prompts = read_prompts(
            given.get("point_coords"), given.get("point_labels"), given.get("box"), given.get("mask_input"), LOW_RES
        )
        inputs = [torch.tensor(array) for array in decoder_inputs(prompts, LOW_RES).values()]
        seen.append(decoder(embedding, *inputs)[0][0])
    differing = [kind for kind in PROMPTS if not kind.startswith("batch")]
    for index, kind in enumerate(differing):
        for other in range(index):
            assert relative_l2(seen[index], seen[other]) > 0.01, (kind, differing[other])


@pytest.mark.parametrize("tokens", [1, 5, 7, 16, 69])
@pytest.mark.parametrize("heads", [1, 4, 8])
def test_two_way_transformer_is_metas_rearranged(tokens: int, heads: int) -> None:
    """The rearrangement is exact: in float64 it agrees to the last digits, whatever the number of prompt tokens."""
    segment_anything()
    from segment_anything.modeling import TwoWayTransformer as MetaTransformer

    config = replace(vit_decoder(), num_heads=heads)
    dim, side = config.embed_dim, 6
    transformer = TwoWayTransformer(config)
    state = seeded_state(transformer, seed=2)
    transformer.load_state_dict(state)
    meta = MetaTransformer(config.depth, dim, heads, config.mlp_dim)
    meta.load_state_dict(state)
    prompt, image, image_pe = normal(2, tokens, dim), normal(2, dim, side, side, seed=1), normal(1, dim, side, side)
    expected = meta.double()(image.double(), image_pe.expand_as(image).double(), prompt.double())
    in_rows = [each.flatten(2).transpose(1, 2).double() for each in (image, image_pe)]
    kept = (tokens + 1) // 2
    result = transformer.double()(prompt.double(), in_rows[0], in_rows[1][0], kept)
    assert relative_l2(result[0], expected[0][:, :kept]) < 1e-12
    assert relative_l2(result[1], expected[1]) < 1e-12
