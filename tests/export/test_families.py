"""Recognising checkpoints by names and shapes, building their models, and refusing what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oracle import build_meta_sam, meta_sam, segment_anything
from seeded import RELEASED_DECODER, SMALL_TINY_VIT, SMALL_VIT, tiny_vit_state, vit_decoder, vit_state
from torch import Tensor

from samrt.bundle.contract import Normalization
from samrt.errors import BundleError
from samrt_export.checkpoint import Checkpoint, read_checkpoint
from samrt_export.families import load_model
from samrt_export.families.sam import RELEASED
from samrt_export.models.config import TinyVitConfig, VitConfig
from samrt_export.models.image_encoder_vit import ImageEncoderViT
from samrt_export.models.sam import Sam
from samrt_export.models.tiny_vit import TinyViT

BLOCK = "image_encoder.blocks"
BIASES = "image_encoder.layers.1.blocks.0.attn.attention_biases"


def checkpoint_of(state: dict[str, Tensor]) -> Checkpoint:
    return Checkpoint(Path("model.pth"), state, sha256="0" * 64, bytes=0)


def refused(state: dict[str, Tensor], message: str, image_size: int | None = None) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        load_model(checkpoint_of(state), image_size=image_size)
    assert "model.pth" in str(caught.value)


# Recognition


def test_builds_a_small_vit_around_the_checkpoints_tensors(small_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(small_checkpoint)
    loaded = load_model(checkpoint)
    assert (loaded.family, loaded.variant, loaded.image_size) == ("sam", "vit_d64x4", 256)
    assert loaded.sam.image_encoder.config == SMALL_VIT
    assert loaded.contract.geometry.normalization == Normalization(
        "mean_std", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    )
    assert not any(module.training for module in loaded.sam.modules())
    assert not any(parameter.requires_grad for parameter in loaded.sam.parameters())
    parameters = loaded.sam.state_dict()
    assert set(parameters) == set(checkpoint.state)
    for name, tensor in parameters.items():
        assert tensor.dtype == torch.float32
        assert tensor.data_ptr() == checkpoint.state[name].data_ptr(), f"{name} was copied"


def test_small_vit_computes_what_metas_does() -> None:
    state = vit_state()
    image = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    expected = meta_sam(state, SMALL_VIT, vit_decoder()).image_encoder(image)
    embedding = load_model(checkpoint_of(state)).sam.image_encoder(image)
    assert (embedding - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("variant", RELEASED)
def test_released_names_and_shapes_equal_metas(variant: str) -> None:
    with torch.device("meta"):
        ours = Sam(ImageEncoderViT(RELEASED[variant]), RELEASED_DECODER)
        metas = segment_anything().sam_model_registry[variant]()
    assert {n: t.shape for n, t in ours.state_dict().items()} == {n: t.shape for n, t in metas.state_dict().items()}


@pytest.mark.parametrize("variant", RELEASED)
def test_recognises_the_released_sizes(variant: str) -> None:
    with torch.device("meta"):
        state = segment_anything().sam_model_registry[variant]().state_dict()
    loaded = load_model(checkpoint_of(state))
    assert (loaded.family, loaded.variant, loaded.image_size) == ("sam", variant, 1024)
    assert loaded.sam.image_encoder.config == RELEASED[variant]
    assert load_model(checkpoint_of(state), image_size=512).variant == variant


@pytest.mark.parametrize(
    "config",
    [
        replace(SMALL_VIT, window_size=0, global_blocks=(0, 1, 2, 3)),
        replace(SMALL_VIT, global_blocks=()),
        replace(SMALL_VIT, image_size=64),  # windows larger than the grid
        replace(SMALL_VIT, patch_size=8, depth=2, global_blocks=(0,), mlp_dim=96, head_dim=32, out_chans=32),
    ],
)
def test_reads_every_size_off_the_shapes(config: VitConfig) -> None:
    with torch.device("meta"):
        state = build_meta_sam(config, vit_decoder(config)).state_dict()
    assert load_model(checkpoint_of(state)).sam.image_encoder.config == config


def test_refuses_a_window_that_a_small_file_claims_and_no_memory_holds() -> None:
    state = vit_state()
    for axis in "hw":
        for block in (0, 2):
            state[f"image_encoder.blocks.{block}.attn.rel_pos_{axis}"] = torch.zeros(2 * 5001 - 1, SMALL_VIT.head_dim)
    with pytest.raises(BundleError, match="10001 rows, those of a grid larger than the 16x16"):
        load_model(checkpoint_of(state))


def test_builds_lite_medsam() -> None:
    state = tiny_vit_state()
    loaded = load_model(checkpoint_of(state))
    assert (loaded.family, loaded.variant, loaded.image_size) == ("lite_medsam", "tiny_vit_d32x5", 256)
    assert loaded.sam.image_encoder.config == SMALL_TINY_VIT
    assert loaded.contract.geometry.normalization == Normalization("min_max")
    assert {name: tensor.data_ptr() for name, tensor in loaded.sam.state_dict().items()} == {
        name: tensor.data_ptr() for name, tensor in state.items()
    }
    with torch.inference_mode():
        embedding = loaded.sam.image_encoder(torch.rand(1, 3, 256, 256))
    assert embedding.shape == (1, 64, 64, 64)
    assert embedding.isfinite().all()


def test_recognises_the_released_lite_medsam() -> None:
    config = TinyVitConfig(256, (64, 128, 160, 320), (2, 2, 6, 2), (0, 4, 5, 10), (0, 7, 14, 7), 256)
    with torch.device("meta"):
        state = Sam(TinyViT(config), replace(RELEASED_DECODER, image_size=256)).state_dict()
    loaded = load_model(checkpoint_of(state), image_size=256)
    assert (loaded.family, loaded.variant) == ("lite_medsam", "tiny_vit")
    assert loaded.sam.image_encoder.config == config


@pytest.mark.parametrize("name", ["sam", "vit_d64x4"])
def test_accepts_the_expected_model(name: str) -> None:
    assert load_model(checkpoint_of(vit_state()), model=name).variant == "vit_d64x4"


@pytest.mark.parametrize("name", ["vit_b", "lite_medsam", ""])
def test_refuses_another_model_than_expected(name: str) -> None:
    with pytest.raises(BundleError, match=rf"model\.pth holds vit_d64x4 of the family sam, not {name}"):
        load_model(checkpoint_of(vit_state()), model=name)


# Input sizes


@pytest.mark.parametrize("image_size", [128, 512])
def test_resizes_the_position_tables(image_size: int) -> None:
    segment_anything()
    from segment_anything.modeling.image_encoder import get_rel_pos

    state, grid = vit_state(), image_size // 16
    loaded = load_model(checkpoint_of(state), image_size=image_size)
    assert loaded.image_size == image_size
    assert loaded.variant == "vit_d64x4"
    resized = loaded.sam.state_dict()
    for block in range(SMALL_VIT.depth):
        for axis in "hw":
            name = f"{BLOCK}.{block}.attn.rel_pos_{axis}"
            if block in SMALL_VIT.global_blocks:
                assert torch.equal(get_rel_pos(grid, grid, state[name]), get_rel_pos(grid, grid, resized[name]))
            else:
                assert torch.equal(state[name], resized[name])
    pos_embed = resized["image_encoder.pos_embed"]
    assert pos_embed.shape == (1, grid, grid, 64)
    for row, column in ((0, 0), (3, 5), (grid - 1, grid // 2)):
        expected = bicubic(state["image_encoder.pos_embed"][0], row, column, grid)
        torch.testing.assert_close(pos_embed[0, row, column], expected, rtol=1e-4, atol=1e-5)


def bicubic(table: Tensor, row: int, column: int, grid: int) -> Tensor:
    """One entry of a table resized by cubic convolution (a = -0.75), pixel centres aligned, edges repeated."""
    value = torch.zeros(table.shape[-1])
    for y, weight_y in taps(row, table.shape[0], grid):
        for x, weight_x in taps(column, table.shape[1], grid):
            value += weight_y * weight_x * table[y, x]
    return value


def taps(index: int, old: int, new: int) -> list[tuple[int, float]]:
    centre = (index + 0.5) * old / new - 0.5
    first = int(centre // 1) - 1
    return [(min(max(i, 0), old - 1), cubic(abs(centre - i))) for i in range(first, first + 4)]


def cubic(distance: float, a: float = -0.75) -> float:
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    return a * (distance**3 - 5 * distance**2 + 8 * distance - 4)


def test_resized_model_computes_what_metas_does() -> None:
    loaded = load_model(checkpoint_of(vit_state()), image_size=384)
    config = replace(SMALL_VIT, image_size=384)
    image = torch.randn(1, 3, 384, 384, generator=torch.Generator().manual_seed(0))
    expected = meta_sam(loaded.sam.state_dict(), config, vit_decoder(config)).image_encoder(image)
    assert (loaded.sam.image_encoder(image) - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("image_size", [-256, 0, 48, 100, 257, 16 * 129])
def test_refuses_unusable_image_sizes(image_size: int) -> None:
    refused(vit_state(), rf"image size {image_size} cannot be used: .* patch size 16 from 64 to 2048", image_size)


@pytest.mark.parametrize("image_size", [128, 512, 1024])
def test_lite_medsam_has_one_image_size(image_size: int) -> None:
    refused(tiny_vit_state(), rf"image size {image_size} cannot be used: LiteMedSAM.*trained at 256 only", image_size)


# Layouts that do not fit


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (f"{BLOCK}.2.attn.rel_pos_h", (11, 16), r"blocks\.2\.attn\.rel_pos_h has 11 rows: neither 31 .* nor .*\(9, as"),
        (f"{BLOCK}.0.attn.rel_pos_h", (8, 16), r"blocks\.0\.attn\.rel_pos_h has 8 rows: neither 31 .*\(an odd number"),
        (f"{BLOCK}.0.attn.rel_pos_h", (9, 15), r"rel_pos_h is 15 wide, which does not divide .* 64"),
        (f"{BLOCK}.2.attn.rel_pos_w", (31, 16), r"1 of another shape \(\S+rel_pos_w \[31, 16\] instead of \[9, 16\]\)"),
        (
            "image_encoder.pos_embed",
            (1, 16, 17, 64),
            r"1 of another shape \(image_encoder\.pos_embed \[1, 16, 17, 64\]",
        ),
        (
            "image_encoder.pos_embed",
            (1, 16, 16, 32),
            r"pos_embed has the shape \[1, 16, 16, 32\], expected \[1, any, any",
        ),
        ("image_encoder.pos_embed", (1, 0, 0, 64), r"pos_embed has the shape \[1, 0, 0, 64\]"),
        ("image_encoder.patch_embed.proj.weight", (64, 1, 16, 16), r"patch_embed\.proj\.weight has the shape"),
        (f"{BLOCK}.1.mlp.lin1.weight", (96, 64), r"blocks\.1\.mlp\.lin1\.weight \[96, 64\] instead of \[128, 64\]"),
        ("mask_decoder.mask_tokens.weight", (3, 64), "predicts 3 masks, expected 4"),
        ("mask_decoder.mask_tokens.weight", (4, 32), "encoder's embedding has 64 channels and the mask decoder's 32"),
    ],
)
def test_refuses_contradicting_shapes(name: str, shape: tuple[int, ...], message: str) -> None:
    refused(vit_state() | {name: torch.zeros(shape)}, message)


def test_refuses_a_decoder_width_that_its_heads_do_not_divide() -> None:
    refused(vit_state(replace(SMALL_VIT, out_chans=40)), "mask decoder's width is 40, expected a multiple of 16")


def test_refuses_global_tables_of_another_grid_throughout() -> None:
    state = vit_state(replace(SMALL_VIT, window_size=0, global_blocks=(0, 1, 2, 3)))
    refused(state | {"image_encoder.pos_embed": torch.zeros(1, 8, 8, 64)}, "a grid larger than the 8x8 of .*pos_embed")


@pytest.mark.parametrize(
    "name",
    [f"{BLOCK}.0.attn.rel_pos_h", "image_encoder.neck.0.weight", "mask_decoder.mask_tokens.weight"],
)
def test_names_a_missing_parameter_that_tells_a_size(name: str) -> None:
    state = vit_state()
    del state[name]
    refused(state, f"the parameter {name} is missing")


@pytest.mark.parametrize("name", ["image_encoder.pos_embed", f"{BLOCK}.1.attn.rel_pos_h", f"{BLOCK}.1.attn.rel_pos_w"])
def test_names_a_table_that_cannot_be_resized(name: str) -> None:
    state = vit_state()
    whole = state[name]
    refused(state | {name: whole.int()}, rf"{name} has the type torch\.int32, expected one of floating point", 96)
    if name.endswith("w"):  # nothing is read off it
        for damaged in (torch.tensor(0.0), whole[0], whole[:0], whole[:13], whole[:, :5]):
            refused(state | {name: damaged}, f"{name} has the shape", 96)
        del state[name]
        refused(state, f"the parameter {name} is missing", 96)


def test_lists_missing_and_unexpected_parameters() -> None:
    state = vit_state()
    for block in range(4):
        del state[f"{BLOCK}.{block}.norm1.bias"], state[f"{BLOCK}.{block}.norm2.bias"]
    state["image_encoder.extra"] = torch.zeros(1)
    refused(
        state,
        r"do not fit a SAM ViT of width 64 and depth 4 \(the nearest released one is vit_b: width 768, depth 12\): "
        r"8 missing \(\S+norm1\.bias, .* and 4 more\); 1 unexpected \(image_encoder\.extra\)",
    )


def test_refuses_quantised_weights() -> None:
    name = f"{BLOCK}.0.mlp.lin1.weight"
    refused(
        vit_state() | {name: torch.zeros(128, 64, dtype=torch.int8)}, rf"{name} torch\.int8 instead of torch\.float32"
    )


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (BIASES, (2, 48), r"attention_biases has the shape \[2, 48\], expected \[heads, window \* window\]"),
        (BIASES, (2, 33**2), "a window of at most 32"),
        (BIASES, (3, 49), r"attention_biases has the shape \[3, 49\], .* heads dividing 16"),
        ("image_encoder.layers.2.downsample.conv1.c.weight", (32, 8, 1, 1), "downsample.conv1.c.weight has the shape"),
        ("image_encoder.layers.4.blocks.0.mlp.fc1.bias", (1,), "has 5 stages, expected 4"),
        ("image_encoder.layers.2.blocks.1.attn.attention_biases", (4, 49), r"\[4, 49\] instead of \[4, 196\]"),
    ],
)
def test_refuses_contradicting_tiny_vit_shapes(name: str, shape: tuple[int, ...], message: str) -> None:
    refused(tiny_vit_state() | {name: torch.zeros(shape)}, message)


def test_batch_norm_statistics_are_required() -> None:
    state = tiny_vit_state()
    del state["image_encoder.patch_embed.seq.0.bn.num_batches_tracked"]
    refused(state, r"1 missing \(image_encoder\.patch_embed\.seq\.0\.bn\.num_batches_tracked\)")


# Other architectures


@pytest.mark.parametrize(
    ("name", "shape", "architecture"),
    [
        ("image_encoder.trunk.patch_embed.proj.weight", (112, 3, 7, 7), "SAM 2"),
        ("detector.backbone.vision_backbone.trunk.patch_embed.proj.weight", (1024, 3, 14, 14), "SAM 3"),
        ("vision_encoder.backbone.patch_embed.projection.weight", (96, 3, 7, 7), "SAM 2 in Hugging Face"),
        ("image_encoder.features.0.0.c.weight", (24, 3, 3, 3), "EdgeSAM"),
        ("image_encoder.patch_embed.seq.0.c.weight", (32, 3, 3, 3), "MobileSAM"),
        ("image_encoder.pos_embed", (1, 197, 192), "EfficientSAM"),
        ("layer1.0.conv1.weight", (64, 64, 3, 3), "ResNet"),
    ],
)
def test_names_architectures_that_are_not_supported(name: str, shape: tuple[int, ...], architecture: str) -> None:
    refused({name: torch.zeros(shape)}, f"architecture is {architecture}.*Supported: SAM with a ViT.*LiteMedSAM")


def test_names_hq_sam_although_it_contains_a_sam() -> None:
    refused(vit_state() | {"mask_decoder.hf_token.weight": torch.zeros(1, 64)}, "architecture is HQ-SAM")


def test_lists_what_is_supported_for_an_unknown_architecture() -> None:
    refused(
        {"stem.weight": torch.zeros(1), "head.weight": torch.zeros(1)},
        r"architecture is unknown \(the first parameters are stem\.weight, head\.weight\)\. Supported: SAM with a ViT",
    )


def test_does_not_take_every_tiny_vit_for_lite_medsam() -> None:
    refused({"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(32, 3, 5, 5)}, "architecture is unknown")
