"""What a checkpoint holds beside a family's parameters: training's modules, the normalisation, other names."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from seeded import tiny_vit_state, vit_state
from torch import Tensor

from samrt.bundle.contract import Normalization
from samrt.errors import BundleError
from samrt_export.families import build_model
from samrt_export.families.hugging_face import converted

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def with_normalization(mean: object, std: object) -> dict[str, Tensor]:
    return vit_state() | {
        name: torch.tensor(values).reshape(-1, 1, 1) for name, values in (("pixel_mean", mean), ("pixel_std", std))
    }


def test_what_only_training_needs_is_left_out_and_named() -> None:
    state = vit_state()
    loaded = build_model(state | {"seg_loss.weight": torch.ones(2), "cls_head.fc.bias": torch.ones(2)}, None)
    assert loaded.sam.state_dict().keys() == state.keys()
    assert loaded.notes == (
        "left out 2 tensors of modules that only training needs (seg_loss.weight, cls_head.fc.bias)",
    )


def test_other_modules_beside_the_model_are_refused() -> None:
    with pytest.raises(BundleError, match=r"1 unexpected \(refiner\.weight\)"):
        build_model(vit_state() | {"refiner.weight": torch.ones(2)}, None)


def test_sams_own_normalisation_changes_nothing() -> None:
    loaded = build_model(with_normalization(MEAN, STD), None)
    assert loaded.contract == build_model(vit_state(), None).contract
    assert loaded.notes == ()


def test_another_normalisation_is_used_and_said() -> None:
    loaded = build_model(with_normalization((100.0, 101.0, 102.0), (50.0, 51.0, 52.0)), None)
    plain = build_model(vit_state(), None).contract
    expected = Normalization("mean_std", (100.0, 101.0, 102.0), (50.0, 51.0, 52.0))
    assert loaded.contract == replace(plain, geometry=replace(plain.geometry, normalization=expected))
    assert "checkpoint's own pixel_mean (100, 101, 102) and pixel_std (50, 51, 52)" in loaded.notes[0]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (with_normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), "of images in 0..1.*multiply both by 255"),
        (with_normalization(MEAN, (58.0, 0.0, 57.0)), "pixel_std is 58, 0, 57, and must be above 0"),
        (with_normalization((123.0,), STD), "pixel_mean has 1 numbers, expected 3"),
        (vit_state() | {"pixel_mean": torch.tensor(MEAN)}, "pixel_std has 0 numbers, expected 3"),
        (
            tiny_vit_state() | {"pixel_mean": torch.tensor(MEAN), "pixel_std": torch.tensor(STD)},
            r"this family takes each image to 0\.\.1 without them",
        ),
    ],
)
def test_a_normalisation_that_cannot_be_used_is_refused(state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        build_model(state, None)


# Pairs of a name of transformers 4.57.1 and Meta's. All 203 of a small SamModel were converted and the
# two models' embeddings and masks compared: they agree to 3e-7 and 3e-4, probably because transformers' LayerNorm has
# another epsilon.
TO_META = {
    "shared_image_embedding.positional_embedding": "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    "vision_encoder.pos_embed": "image_encoder.pos_embed",
    "vision_encoder.patch_embed.projection.bias": "image_encoder.patch_embed.proj.bias",
    "vision_encoder.layers.0.layer_norm1.weight": "image_encoder.blocks.0.norm1.weight",
    "vision_encoder.layers.0.attn.rel_pos_h": "image_encoder.blocks.0.attn.rel_pos_h",
    "vision_encoder.neck.layer_norm2.bias": "image_encoder.neck.3.bias",
    "prompt_encoder.mask_embed.conv3.weight": "prompt_encoder.mask_downscaling.6.weight",
    "prompt_encoder.point_embed.3.weight": "prompt_encoder.point_embeddings.3.weight",
    "prompt_encoder.not_a_point_embed.weight": "prompt_encoder.not_a_point_embed.weight",
    "mask_decoder.transformer.layers.1.layer_norm4.weight": "mask_decoder.transformer.layers.1.norm4.weight",
    "mask_decoder.transformer.layer_norm_final_attn.bias": "mask_decoder.transformer.norm_final_attn.bias",
    "mask_decoder.upscale_layer_norm.weight": "mask_decoder.output_upscaling.1.weight",
    "mask_decoder.output_hypernetworks_mlps.3.proj_in.bias": "mask_decoder.output_hypernetworks_mlps.3.layers.0.bias",
    "mask_decoder.output_hypernetworks_mlps.3.layers.0.bias": "mask_decoder.output_hypernetworks_mlps.3.layers.1.bias",
    "mask_decoder.output_hypernetworks_mlps.3.proj_out.bias": "mask_decoder.output_hypernetworks_mlps.3.layers.2.bias",
}


def test_hugging_faces_names_become_metas() -> None:
    values = {name: torch.tensor([float(index)]) for index, name in enumerate(TO_META)}
    assert converted(values) == {TO_META[name]: value for name, value in values.items()}


def in_hugging_faces_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = [
        (r"mlps\.(\d+)\.layers\.0\.", r"mlps.\1.proj_in."),
        (r"mlps\.(\d+)\.layers\.2\.", r"mlps.\1.proj_out."),
        (r"mlps\.(\d+)\.layers\.1\.", r"mlps.\1.layers.0."),
        (r"prediction_head\.layers\.0\.", "prediction_head.proj_in."),
        (r"prediction_head\.layers\.2\.", "prediction_head.proj_out."),
        (r"prediction_head\.layers\.1\.", "prediction_head.layers.0."),
        (r"output_upscaling\.0", "upscale_conv1"),
        (r"output_upscaling\.1", "upscale_layer_norm"),
        (r"output_upscaling\.3", "upscale_conv2"),
        (r"mask_downscaling\.0", "mask_embed.conv1"),
        (r"mask_downscaling\.1", "mask_embed.layer_norm1"),
        (r"mask_downscaling\.3", "mask_embed.conv2"),
        (r"mask_downscaling\.4", "mask_embed.layer_norm2"),
        (r"mask_downscaling\.6", "mask_embed.conv3"),
        (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
        (r"point_embeddings", "point_embed"),
        (r"neck\.0", "neck.conv1"),
        (r"neck\.1", "neck.layer_norm1"),
        (r"neck\.2", "neck.conv2"),
        (r"neck\.3", "neck.layer_norm2"),
        (r"image_encoder\.blocks", "image_encoder.layers"),
        (r"patch_embed\.proj\.", "patch_embed.projection."),
        (r"image_encoder", "vision_encoder"),
        (r"\.norm", ".layer_norm"),
    ]
    for pattern, replacement in renamed:
        state = {re.sub(pattern, replacement, name): tensor for name, tensor in state.items()}
    return state


def test_a_whole_model_in_hugging_faces_names_is_built() -> None:
    state = vit_state()
    theirs = in_hugging_faces_names(state)
    table = theirs["prompt_encoder.shared_embedding.positional_embedding"]
    loaded = build_model(theirs | {"shared_image_embedding.positional_embedding": table}, None)
    built = loaded.sam.state_dict()
    assert built.keys() == state.keys()
    assert all(torch.equal(built[name], tensor) for name, tensor in state.items())
    assert loaded.notes == ("converted from the parameter names of Hugging Face's SamModel",)

    with pytest.raises(BundleError, match="differ, and SAM has one such table"):
        build_model(theirs | {"shared_image_embedding.positional_embedding": table + 1}, None)
