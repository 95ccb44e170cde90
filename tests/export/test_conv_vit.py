"""The encoder with a pretrained trunk: its trunk against the released network, and all of it through an export."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from seeded import (
    SMALL_CONV_VIT,
    conv_vit_state,
    normal,
    released_trunk,
    seeded_state,
    tiny_vit_state,
    vit_state,
)
from torch import Tensor

from samrt.bundle.contract import Normalization
from samrt.errors import BundleError
from samrt_export.checkpoint import Checkpoint
from samrt_export.families import LoadedModel, conv_vit, lite_medsam, load_model, sam
from samrt_export.families.vit_blocks import PIXEL_MEAN, PIXEL_STD
from samrt_export.lowering import LOWERINGS, lower, resolve
from samrt_export.models.config import ConvVitConfig
from samrt_export.models.conv_vit import ConvViT
from samrt_export.models.image_encoder_vit import Attention
from samrt_export.models.mbconv import Trunk
from samrt_export.models.sam import Sam
from samrt_export.pipeline import ExportOptions, export
from training import efficientnet
from training.efficientnet import DEFAULT, LITE2, folded, trunk_state
from training.recipes import RECIPES

SMALL = SMALL_CONV_VIT.trunk
BLOCK = "image_encoder.blocks"
# Mean, standard deviation and four numbers of each output.
STORED = (
    (-0.202786, 11.5581, [9.48235, 15.31446, -4.70285, -1.37395]),
    (-0.255169, 7.02733, [-0.94919, -2.29359, -7.76103, 0.14484]),
    (0.778916, 7.83263, [1.29658, 4.22962, -9.01491, -0.80604]),
)


def load(state: dict[str, Tensor], image_size: int | None = None) -> LoadedModel:
    return load_model(Checkpoint(Path("model.pth"), state, sha256="0" * 64, bytes=0), image_size=image_size)


# The trunk


def reference(state: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """The released network in float64, with its batch norms and TensorFlow's padding for the sides at hand."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def conv(name: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        kernel, groups = weight.shape[-1], x.shape[1] // weight.shape[1]
        short = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)
        x = F.conv2d(F.pad(x, [short // 2, short - short // 2] * 2), weight, stride=stride, groups=groups)
        mean, var, gain, bias = (
            state[f"{norm}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * gain + bias

    x = conv("_conv_stem", "_bn0", image.double(), 2).clamp(0, 6)
    number, outputs = 0, []
    for depth, stride in zip(SMALL.depths, (1, 2, 2, 2, 1, 2), strict=True):
        for block in range(depth):
            name, before = f"_blocks.{number}", x
            if number:
                x = conv(f"{name}._expand_conv", f"{name}._bn0", x).clamp(0, 6)
            x = conv(f"{name}._depthwise_conv", f"{name}._bn1", x, 1 if block else stride).clamp(0, 6)
            x = conv(f"{name}._project_conv", f"{name}._bn2", x)
            if x.shape == before.shape:
                x = x + before
            number += 1
        outputs.append(x)
    return [outputs[index] for index in (2, 4, 5)]


def test_the_trunk_is_the_released_network() -> None:
    # A side of 36 is halved to even and odd sides where 260 is, the side that the weights were trained at.
    released, image = released_trunk(), 2 * normal(2, 3, 36, 36)
    trunk = Trunk(SMALL).requires_grad_(False)
    trunk.load_state_dict(folded(released, SMALL))

    for found, expected in zip(trunk(image), reference(released, image), strict=True):
        assert expected.std() > 0.1
        assert (found - expected).norm() / expected.norm() < 1e-5


def test_the_released_weights_give_what_their_own_code_gave() -> None:
    """The numbers are those of efficientnet_lite_pytorch 0.1.0, up to the block that ends each resolution."""
    if not DEFAULT.is_file():
        pytest.skip(f"no trunk's weights at {DEFAULT}; `python -m training.efficientnet` fetches them")
    trunk = Trunk(LITE2).requires_grad_(False)
    trunk.load_state_dict(folded(torch.load(DEFAULT, weights_only=True)))
    place = torch.arange(68.0) / 68
    image = torch.stack([(k * place[:, None] + place**2 * 7).sin() for k in (3.0, 5.0, 8.0)])[None]

    outputs = trunk(image)

    assert [tuple(each.shape) for each in outputs] == [(1, 48, 9, 9), (1, 120, 5, 5), (1, 208, 3, 3)]
    for found, (mean, std, first) in zip(outputs, STORED, strict=True):
        assert (found.mean().item(), found.std().item()) == pytest.approx((mean, std), rel=1e-3)
        torch.testing.assert_close(found[0, :4, 1, 2], torch.tensor(first), rtol=1e-3, atol=1e-3)


def test_the_trunk_takes_pixels_normalised_as_sams_are() -> None:
    released = released_trunk()
    pixels = 255 * torch.rand(1, 3, 36, 36, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    trunk = Trunk(SMALL).requires_grad_(False)
    trunk.load_state_dict(folded(released, SMALL))
    expected = trunk.stem((pixels - 127) / 128)

    trunk.load_state_dict(trunk_state(released, SMALL))

    # The last row and column see the padding, which stands for another grey.
    found = trunk.stem((pixels - mean) / std)
    torch.testing.assert_close(found[..., :-1, :-1], expected[..., :-1, :-1], rtol=1e-4, atol=1e-4)


def test_released_weights_that_lack_a_part_are_refused() -> None:
    released = released_trunk()
    del released["_blocks.3._bn1.running_var"]
    with pytest.raises(BundleError, match=r"lack _blocks\.3\._bn1\.running_var"):
        trunk_state(released, SMALL)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("_conv_stem.weight", (8, 1, 3, 3)),
        ("_blocks.0._depthwise_conv.weight", (8, 1, 5, 5)),
        ("_bn0.running_var", (9,)),
        ("_bn0.weight", ()),
    ],
)
def test_released_weights_of_another_network_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(BundleError, match=rf"released {re.escape(name)} has the shape {re.escape(str(list(shape)))}"):
        trunk_state(released_trunk() | {name: torch.ones(shape)}, SMALL)


def test_an_unwritable_place_for_the_weights_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["efficientnet", str(tmp_path / "file" / "weights.pth")])
    assert efficientnet.main() == 1
    assert capsys.readouterr().err.startswith("training.efficientnet: cannot read or write ")


# The family


def test_reads_every_size_off_the_shapes() -> None:
    state = conv_vit_state()
    loaded = load(state)
    assert (loaded.family, loaded.variant, loaded.image_size) == ("conv_vit", "conv_vit_d32x3", 128)
    assert loaded.sam.image_encoder.config == SMALL_CONV_VIT
    assert loaded.contract.geometry.normalization == Normalization("mean_std", PIXEL_MEAN, PIXEL_STD)
    assert {name: tensor.data_ptr() for name, tensor in loaded.sam.state_dict().items()} == {
        name: tensor.data_ptr() for name, tensor in state.items()
    }


def test_resizes_the_tables_of_global_layers() -> None:
    state = conv_vit_state()
    resized = load(state, image_size=192).sam.state_dict()
    assert resized[f"{BLOCK}.1.attn.rel_pos_h"].shape == (47, 16)
    assert torch.equal(resized[f"{BLOCK}.0.attn.rel_pos_h"], state[f"{BLOCK}.0.attn.rel_pos_h"])
    with torch.inference_mode():
        embedding = load(state, image_size=192).sam.image_encoder(normal(1, 3, 192, 192))
    assert embedding.shape == (1, 32, 24, 24)


@pytest.mark.parametrize("image_size", [0, 32, 100, 1056])
def test_refuses_unusable_image_sizes(image_size: int) -> None:
    with pytest.raises(BundleError, match=rf"image size {image_size} cannot be used: choose a multiple of 32 from 64"):
        load(conv_vit_state(), image_size=image_size)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("image_encoder.trunk.stages.6.0.project.weight", (8, 8, 1, 1), "the trunk has 7 stages, expected 6"),
        ("image_encoder.trunk.stem.weight", (8, 3, 5, 5), r"trunk\.stem\.weight has the shape \[8, 3, 5, 5\]"),
        (
            "image_encoder.trunk.stages.2.0.depthwise.weight",
            (48, 1, 3, 3),
            r"\[48, 1, 3, 3\] instead of \[48, 1, 5, 5\]",
        ),
        ("image_encoder.from_fine.weight", (32, 9, 1, 1), r"from_fine\.weight has the shape \[32, 9, 1, 1\]"),
        (f"{BLOCK}.0.attn.rel_pos_h", (9, 15), r"15 wide, which does not divide the encoder's width 32"),
        (f"{BLOCK}.2.attn.rel_pos_h", (12, 16), "have 9, 12, 31 rows, expected two odd numbers at most"),
        ("image_encoder.extra", (1,), r"1 unexpected \(image_encoder\.extra\)"),
    ],
)
def test_refuses_contradicting_shapes(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        load(conv_vit_state() | {name: torch.zeros(shape)})


@pytest.mark.parametrize("name", ["image_encoder.trunk.stages.3.0.expand.bias", "image_encoder.norm.weight"])
def test_names_a_missing_parameter(name: str) -> None:
    state = conv_vit_state()
    del state[name]
    with pytest.raises(BundleError, match=rf"1 missing \({name}\)"):
        load(state)


def test_does_not_take_another_familys_checkpoint() -> None:
    assert not conv_vit.matches(vit_state())
    assert not conv_vit.matches(tiny_vit_state())
    assert not sam.matches(conv_vit_state())
    assert not lite_medsam.matches(conv_vit_state())


@pytest.mark.parametrize("image_size", [None, 128, 192])
@pytest.mark.parametrize(
    ("axis", "table"),
    [
        *[
            (axis, table)
            for axis in ("h", "w")
            for table in (None, torch.tensor(0.0), torch.zeros(31), torch.zeros(31, 16).int(), torch.zeros(0, 16))
        ],
        ("w", torch.zeros(13, 16)),  # of the heights another length is another grid
    ],
    ids=lambda value: str(list(value.shape)) if isinstance(value, Tensor) else None,
)
def test_a_damaged_table_is_named(axis: str, table: Tensor | None, image_size: int | None) -> None:
    name = f"{BLOCK}.1.attn.rel_pos_{axis}"
    state = conv_vit_state()
    del state[name]
    with pytest.raises(BundleError, match=re.escape(name)):
        load(state | ({} if table is None else {name: table}), image_size)


def test_bounds_what_tables_claim() -> None:
    state = conv_vit_state()
    for axis in ("h", "w"):
        state[f"{BLOCK}.1.attn.rel_pos_{axis}"] = torch.zeros(257, 16)
    with pytest.raises(BundleError, match=r"257 rows, those of a 129x129 grid: expected at most 255"):
        load(state, image_size=128)

    windows = [(block, axis) for block in (0, 2) for axis in ("h", "w")]
    state |= {f"{BLOCK}.1.attn.rel_pos_{axis}": torch.zeros(255, 16) for axis in ("h", "w")}
    state |= {f"{BLOCK}.{block}.attn.rel_pos_{axis}": torch.zeros(65, 16) for block, axis in windows}
    with pytest.raises(BundleError, match=r"windows of 33x33 cannot be used on the 16x16 grid"):
        load(state, image_size=128)
    assert load(state, image_size=288).image_size == 288
    state |= {f"{BLOCK}.{block}.attn.rel_pos_{axis}": torch.zeros(63, 16) for block, axis in windows}
    assert load(state, image_size=128).image_size == 128


# What is exported


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_every_form_computes_the_same(lowering: str) -> None:
    image = normal(2, 3, 128, 128)
    sam = load(conv_vit_state()).sam
    expected = sam.image_encoder(image)
    precision = "fp16" if lowering == "plugin" else "fp32"
    if lowering != "plugin":  # whose kernel has no heads as narrow as these
        assert resolve(lowering, sam.image_encoder, precision) == lowering

    lower(sam.image_encoder, lowering)

    kinds = {type(block.attn) for block in sam.image_encoder.blocks}
    assert (kinds == {Attention}) == (lowering == "dense")
    assert (sam.image_encoder(image) - expected).norm() / expected.norm() < 1e-5


def test_the_plugin_fits_heads_of_64() -> None:
    wide = replace(SMALL_CONV_VIT, vit=replace(SMALL_CONV_VIT.vit, embed_dim=64, head_dim=64))
    assert resolve("plugin", ConvViT(wide), "fp16") == "plugin"
    assert [resolve("auto", ConvViT(wide), precision) for precision in ("fp32", "fp16")] == ["chunked", "augmented"]


def test_exported_bundle_agrees_with_torch(tmp_path: Path) -> None:
    """`export` itself compares both precisions with torch: on two images, and on points, boxes and masks."""
    torch.save(conv_vit_state(), tmp_path / "seeded.pth")

    manifest = export(tmp_path / "seeded.pth", tmp_path / "bundle", ExportOptions(precisions=("fp32", "fp16")))

    assert (manifest.family, [form.name for form in manifest.forms]) == ("conv_vit", ["fp32-chunked", "fp16-augmented"])
    assert all(form.verification for form in manifest.forms)


def test_the_size_that_is_trained_has_room_in_the_package() -> None:
    recipe = RECIPES["trunk"]
    assert recipe.trunk
    vit, decoder = recipe.encoder(512), recipe.decoder(512)
    with torch.device("meta"):
        sam = Sam(ConvViT(ConvVitConfig(recipe.trunk, vit)), decoder)
        assert sam.image_encoder(torch.empty(1, 3, 512, 512)).shape == (1, 256, 64, 64)
    # An exported graph holds a global layer's tables for each pair of rows and of columns, and the grid's encoding.
    tables = len(vit.global_blocks) * 2 * vit.grid**2 * vit.head_dim
    stored = sum(tensor.numel() for tensor in sam.parameters()) + tables + vit.grid**2 * vit.out_chans
    assert 2 * stored < 23.8e6  # bytes in half precision, of 24 MB with the graphs


def test_images_of_a_batch_do_not_mix() -> None:
    model = ConvViT(SMALL_CONV_VIT).requires_grad_(False)
    model.load_state_dict(seeded_state(model, seed=1))
    image = normal(3, 3, 128, 128)
    torch.testing.assert_close(model(image)[1:2], model(image[1:2]), rtol=1e-4, atol=1e-4)


def test_every_parameter_takes_part() -> None:
    model = ConvViT(SMALL_CONV_VIT)
    model.load_state_dict(seeded_state(model, seed=1))
    (model(normal(1, 3, 128, 128)) * normal(1, 32, 16, 16, seed=2)).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert idle == []
