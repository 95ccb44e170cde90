"""A checkpoint becomes a whole, compared bundle."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_reuse import PERFECT, reuse
from numpy.typing import NDArray
from oracle import photograph
from seeded import SMALL_VIT, vit_state
from torch import nn

import samrt
from samrt.bundle.folder import open_bundle
from samrt.bundle.manifest import Manifest
from samrt.bundle.precisions import PRECISIONS
from samrt.errors import ExportError, InputError
from samrt.files import sha256_of
from samrt_export import pipeline
from samrt_export.onnx_export import OPSET
from samrt_export.pipeline import ExportOptions, export

IMAGE = photograph(200, 300)
PROMPTS: list[dict[str, Any]] = [
    {"point_coords": [[150, 90]], "point_labels": [1]},
    {"point_coords": [[30, 20], [250, 180]], "point_labels": [1, 0]},
    {"box": [90, 40, 210, 110]},
]


@pytest.fixture(scope="module")
def fp16_bundle(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("fp16") / "small.samrt"
    export(small_checkpoint, target, ExportOptions(precisions=("fp16",)))
    return target


@pytest.fixture(scope="module")
def half_size_bundle(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dense, for images of 128 pixels."""
    target = tmp_path_factory.mktemp("half_size") / "small.samrt"
    export(small_checkpoint, target, ExportOptions(lowering="dense", image_size=128))
    return target


# Whole exports


def assert_passed(manifest: Manifest) -> None:
    (form,) = manifest.forms
    verification, tolerance = form.verification, PRECISIONS[form.precision].tolerance
    figures = verification["figures"]
    assert 0 < figures["embedding_relative_l2"] <= tolerance.embedding_relative_l2
    assert set(figures["prompts"]) == {"point", "box", "points and box", "mask", "points and mask", "batch"}
    for of_prompt in figures["prompts"].values():
        assert tolerance.mask_iou <= of_prompt["mask_iou"] <= 1
        assert 0 < of_prompt["iou_prediction"] <= tolerance.iou_prediction
        assert 0 < of_prompt["logits_relative_l2"] < 0.1
    assert verification["tolerance"]["mask_iou"] == tolerance.mask_iou
    assert verification["runtime"] == f"onnxruntime {onnxruntime.__version__}"


def test_default_export(small_bundle: Path, small_checkpoint: Path) -> None:
    manifest = open_bundle(small_bundle).manifest
    assert_passed(manifest)
    assert (manifest.family, manifest.variant) == ("sam", "vit_d64x4")
    assert [form.name for form in manifest.forms] == ["fp32-chunked"]
    geometry, (feature,) = manifest.geometry, manifest.features
    assert (geometry.encoder_side, geometry.prompt_side, geometry.low_res_side) == (256, 256, 64)
    assert (feature.name, feature.shape) == ("image_embeddings", (64, 16, 16))
    assert manifest.source.name == small_checkpoint.name
    assert manifest.source.sha256 == sha256_of(small_checkpoint)
    assert manifest.source.bytes == small_checkpoint.stat().st_size
    # All but some kilobytes of the file are parameters of four bytes.
    assert 0.9 < 4 * manifest.source.parameters / manifest.source.bytes < 1
    assert manifest.exporter["torch"].startswith("2.")
    assert {path.name for path in small_bundle.iterdir()} == {"manifest.json", *manifest.files}
    assert set(manifest.files) == {
        "image_encoder.fp32-chunked.onnx",
        "image_encoder.fp32-chunked.weights",
        "mask_decoder.fp32.onnx",
    }


def test_fp16_export(fp16_bundle: Path, small_bundle: Path) -> None:
    half, full = open_bundle(fp16_bundle).manifest, open_bundle(small_bundle).manifest
    assert_passed(half)
    assert [form.name for form in half.forms] == ["fp16-augmented"]
    # The model is the same, and so is what its embeddings are good for; only the numbers inside are shorter.
    assert half.model_id == full.model_id
    for name, graph in full.forms[0].graphs.items():
        assert replace(half.forms[0].graphs[name], file=graph.file) == graph
    assert half.files["mask_decoder.fp16.onnx"].bytes < 0.8 * full.files["mask_decoder.fp32.onnx"].bytes


def test_a_bundle_with_a_form_for_cpus_and_one_for_gpus(
    small_checkpoint: Path, small_bundle: Path, fp16_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = tmp_path / "both"
    both.mkdir()
    for name in (*open_bundle(small_bundle).manifest.files, *open_bundle(fp16_bundle).manifest.files):
        shutil.copyfile((small_bundle if "fp32" in name else fp16_bundle) / name, both / name)
    reuse(both, monkeypatch)
    manifest = export(small_checkpoint, tmp_path / "bundle", ExportOptions(precisions=("fp32", "fp16")))
    assert [form.name for form in manifest.forms] == ["fp32-chunked", "fp16-augmented"]
    for form, alone in zip(manifest.forms, (small_bundle, fp16_bundle), strict=True):
        assert form.verification == open_bundle(alone).manifest.forms[0].verification
        assert set(manifest.files_of(form)) == set(open_bundle(alone).manifest.files)
    with samrt.load(tmp_path / "bundle") as model:
        assert str(model.choice) == "onnxruntime, fp32-chunked"


@pytest.mark.parametrize("precisions", [(), ("fp32", "fp32"), ("",)])
def test_refuses_precisions_that_are_none_or_twice_the_same(
    small_checkpoint: Path, tmp_path: Path, precisions: tuple[str, ...]
) -> None:
    with pytest.raises(InputError, match="choose one of fp32, fp16, or several, each once"):
        export(small_checkpoint, tmp_path / "bundle", ExportOptions(precisions=precisions))
    assert not list(tmp_path.iterdir())


def test_fp16_that_overflows_is_refused_though_a_cpu_does_not_show_it(
    fp16_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = vit_state()
    for name, values in state.items():
        # The same function in float32; in half precision the hidden layer is infinite.
        if ".mlp.lin1." in name and "image_encoder" in name:
            state[name] = values * 2**17
        if ".mlp.lin2.weight" in name and "image_encoder" in name:
            state[name] = values / 2**17
    monkeypatch.setattr(nn.GELU, "forward", lambda _, x: x.relu())  # which scales with its input, as GELU does not
    torch.save(state, tmp_path / "large.pth")
    reuse(fp16_bundle, monkeypatch)
    monkeypatch.setattr(pipeline, "_compare_bundle", lambda *_: PERFECT)
    with pytest.raises(ExportError, match="nan"):
        export(tmp_path / "large.pth", tmp_path / "bundle", ExportOptions(precisions=("fp16",)))
    assert not (tmp_path / "bundle").exists()


def test_another_image_size(half_size_bundle: Path) -> None:
    with samrt.load(half_size_bundle) as model:
        manifest = model.manifest
        assert_passed(manifest)
        assert (model.image_size, manifest.features[0].shape) == (128, (64, 8, 8))
        assert [form.name for form in manifest.forms] == ["fp32-dense"]
        prediction = model.predict(model.encode(IMAGE), box=[90, 40, 210, 110])
    assert prediction.masks.shape == (3, 200, 300)
    assert prediction.low_res_masks.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("lowering", "precision"), [("augmented", "fp32"), ("dense", "fp32"), ("chunked", "fp16"), ("dense", "fp16")]
)
def test_other_lowerings(
    small_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    lowering: str,
    precision: str,
) -> None:
    same_decoder = request.getfixturevalue("small_bundle" if precision == "fp32" else "fp16_bundle")
    reuse(same_decoder, monkeypatch, only_decoder=True)
    manifest = export(small_checkpoint, tmp_path / "bundle", ExportOptions(lowering=lowering, precisions=(precision,)))
    assert_passed(manifest)
    assert open_bundle(tmp_path / "bundle").manifest == manifest
    assert [form.name for form in manifest.forms] == [f"{precision}-{lowering}"]
    assert_batch_axis(tmp_path / "bundle")


def assert_batch_axis(bundle: Path) -> None:
    """Three images in one call are encoded as three in a row are."""
    (form,) = open_bundle(bundle).manifest.forms
    session = onnxruntime.InferenceSession(
        bundle / form.graphs["image_encoder"].file, providers=["CPUExecutionProvider"]
    )
    images = np.random.default_rng(0).normal(size=(3, 3, 256, 256)).astype(np.float32)
    (together,) = session.run(None, {"image": images})
    assert together.dtype == np.float32
    for index in range(3):
        (alone,) = session.run(None, {"image": images[index : index + 1]})
        error = np.linalg.norm(together[index] - alone[0]) / np.linalg.norm(alone)
        assert error <= PRECISIONS[form.precision].tolerance.embedding_relative_l2


@pytest.mark.parametrize("name", ["small_bundle", "fp16_bundle"])
def test_encoder_batch_is_dynamic(name: str, request: pytest.FixtureRequest) -> None:
    assert_batch_axis(request.getfixturevalue(name))


def masks_of(bundle: Path) -> NDArray[np.bool_]:
    with samrt.load(bundle) as model:
        embedding = model.encode(IMAGE)
        return np.concatenate(
            [
                model.predict(embedding, **prompt, multimask_output=many).masks
                for prompt in PROMPTS
                for many in (True, False)
            ]
        )


def test_fp16_masks_are_those_of_fp32(small_bundle: Path, fp16_bundle: Path) -> None:
    full, half = masks_of(small_bundle), masks_of(fp16_bundle)
    assert np.all((full.mean(axis=(1, 2)) > 0.01) & (full.mean(axis=(1, 2)) < 0.99))
    ious = (full & half).sum(axis=(1, 2)) / (full | half).sum(axis=(1, 2))
    assert ious.min() >= PRECISIONS["fp16"].tolerance.mask_iou == 0.995
    assert not np.array_equal(full, half)  # or fp16 was not run


# The files


def file_of(bundle: Path, name: str) -> str:
    (form,) = open_bundle(bundle).manifest.forms
    return form.graphs[name].file


def graph_of(bundle: Path, name: str) -> onnx.ModelProto:
    return onnx.load(str(bundle / file_of(bundle, name)), load_external_data=False)


def test_graphs_are_of_the_declared_opset(small_bundle: Path) -> None:
    for name in ("image_encoder", "mask_decoder"):
        onnx.checker.check_model(str(small_bundle / file_of(small_bundle, name)))
        opsets = {each.domain: each.version for each in graph_of(small_bundle, name).opset_import}
        assert opsets[""] == OPSET == open_bundle(small_bundle).manifest.exporter["opset"]
        assert set(opsets) <= ({"", "samrt"} if name == "image_encoder" else {""})


def test_layer_norm_is_one_node(small_bundle: Path) -> None:
    """Decomposed, it is where half precision overflows."""
    kinds = [node.op_type for node in graph_of(small_bundle, "image_encoder").graph.node]
    assert kinds.count("LayerNormalization") == 2 * SMALL_VIT.depth + 2


@pytest.mark.parametrize("name", ["small_bundle", "fp16_bundle"])
def test_the_encoders_weights_are_external(name: str, request: pytest.FixtureRequest) -> None:
    """A graph file may not exceed 2 GB, which ViT-H's weights do: every one of them lies in the other file."""
    bundle = request.getfixturevalue(name)
    external = [each for each in graph_of(bundle, "image_encoder").graph.initializer if each.external_data]
    inside = [each for each in graph_of(bundle, "image_encoder").graph.initializer if not each.external_data]
    weights = file_of(bundle, "image_encoder").replace(".onnx", ".weights")
    assert {entry.value for each in external for entry in each.external_data if entry.key == "location"} == {weights}
    stored = sum(int(entry.value) for each in external for entry in each.external_data if entry.key == "length")
    size = (bundle / weights).stat().st_size
    assert 0.5 * size < stored <= size  # the rest is alignment
    assert all(each.ByteSize() < 1000 for each in inside)
    constants = [
        attribute.ByteSize()
        for node in graph_of(bundle, "image_encoder").graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
    ]
    assert all(length < 1000 for length in constants)
    assert not any(each.external_data for each in graph_of(bundle, "mask_decoder").graph.initializer)


def test_no_path_of_the_exporting_machine_is_in_a_graph(small_bundle: Path) -> None:
    """Torch notes for each node where in the sources it comes from."""
    graphs = sorted(small_bundle.glob("*.onnx"))

    assert graphs
    for graph in graphs:
        content = graph.read_bytes()
        assert b".py" not in content
        assert str(Path(__file__).parents[2]).encode() not in content
