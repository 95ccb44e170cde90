"""Engines: chosen by name, compared with the manifest, failing with samrt's own errors."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from contracts import geometry
from toy_bundle import MIX, rewrite_manifest, toy_encoder

from samrt.backends.onnxruntime import OnnxRuntimeEngine
from samrt.backends.session import Engine, Session, open_session
from samrt.bundle.contract import Tensor
from samrt.bundle.folder import open_bundle
from samrt.errors import BackendError, BundleError

pytest_plugins = ("toy_fixtures",)


def open_onnxruntime(folder: Path) -> Session:
    return open_session(open_bundle(folder), "onnxruntime")


def open_encoder(folder: Path) -> Engine:
    return open_onnxruntime(folder).encoder


@pytest.mark.parametrize("name", ["tensorflow", "", "ONNXRuntime"])
def test_unknown_backend_lists_the_known(name: str, toy_bundle: Path) -> None:
    with pytest.raises(BackendError, match=f"no backend '{name}'; choose one of auto, onnxruntime"):
        open_session(open_bundle(toy_bundle), name)


def test_encoder_runs_with_its_external_weights(toy_bundle: Path) -> None:
    engine = open_encoder(toy_bundle)
    assert engine.inputs == (Tensor("image", "float32", ("batch", 3, 64, 64)),)
    pixels = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    np.testing.assert_allclose(engine.run({"image": pixels})["image_embeddings"], toy_encoder(pixels), atol=1e-5)
    assert MIX.tobytes() in (toy_bundle / "encoder.weights").read_bytes()


def test_closed_engine_says_so(toy_bundle: Path) -> None:
    engine = open_encoder(toy_bundle)
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match="closed; load the bundle again"):
        engine.run({"image": np.zeros((1, 3, 64, 64), np.float32)})


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"image": np.zeros((1, 3, 32, 32), np.float32)},
        {"image": np.zeros((1, 3, 64, 64))},
        {"picture": np.zeros((1, 3, 64, 64), np.float32)},
    ],
)
def test_failing_run(toy_bundle: Path, inputs: dict[str, Any]) -> None:
    engine = open_encoder(toy_bundle)
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        engine.run(inputs)


def test_file_that_is_no_graph(own_bundle: Path) -> None:
    (own_bundle / "decoder.onnx").write_bytes(b"not a graph")
    rewrite_manifest(own_bundle)
    with pytest.raises(BundleError, match=r"decoder.onnx is not an ONNX graph.*export the checkpoint again"):
        open_onnxruntime(own_bundle)


def test_graph_that_onnx_runtime_refuses(own_bundle: Path) -> None:
    model = onnx.load(str(own_bundle / "decoder.onnx"))
    model.graph.node[0].input[0] = "absent"
    onnx.save_model(model, str(own_bundle / "decoder.onnx"))
    rewrite_manifest(own_bundle)
    with pytest.raises(BackendError, match=r"cannot load .*decoder.onnx.*export the checkpoint again"):
        open_onnxruntime(own_bundle)


def test_input_whose_name_is_no_text(own_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    graph = own_bundle / "encoder.onnx"
    assert graph.read_bytes().count(b"image") > 1
    graph.write_bytes(graph.read_bytes().replace(b"\x05image", b"\x05imag\xff"))
    with pytest.raises(BackendError, match="input or an output whose name is not UTF-8"):
        OnnxRuntimeEngine(graph)
    assert capfd.readouterr() == ("", "")


def test_refused_graph_prints_nothing(own_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    graph = own_bundle / "encoder.onnx"
    model = onnx.load(str(graph), load_external_data=False)
    model.graph.node[0].attribute.add(name="\x7f\x7f", type=onnx.AttributeProto.INT)
    graph.write_bytes(model.SerializeToString().replace(b"\x7f\x7f", b"\xff\xfe"))
    with pytest.raises(BackendError, match="cannot load"):
        OnnxRuntimeEngine(graph)
    assert capfd.readouterr() == ("", "")


def test_bundle_opened_by_a_relative_path(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy_bundle.parent)
    bundle = open_bundle(toy_bundle.name)
    monkeypatch.chdir("/")
    open_session(bundle, "onnxruntime").close()


def test_onnx_runtime_that_is_not_installed(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(toy_bundle)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match="pip install onnxruntime"):
        open_session(bundle, "onnxruntime")


def _edit(folder: Path, name: str, edit: Any) -> None:
    model = onnx.load(folder / name, load_external_data=False)
    edit(model.graph)
    (folder / name).write_bytes(model.SerializeToString())
    rewrite_manifest(folder)


def _rename_output(graph: onnx.GraphProto) -> None:
    graph.node[-1].output[0] = graph.output[1].name = "scores"


def _fix_prompts(graph: onnx.GraphProto) -> None:
    for tensor in graph.input:
        for dim in tensor.type.tensor_type.shape.dim:
            if dim.dim_param == "prompts":
                dim.dim_value = 1


def _extra_output(graph: onnx.GraphProto) -> None:
    graph.output.append(onnx.helper.make_tensor_value_info("bumps", onnx.TensorProto.FLOAT, [None] * 4))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_rename_output, "outputs low_res_masks, scores, the manifest says low_res_masks, iou_predictions"),
        (_extra_output, "outputs low_res_masks, iou_predictions, bumps, the manifest says"),
        (_fix_prompts, "has the input .*point_coords.* the manifest says"),
    ],
)
def test_graph_that_contradicts_the_manifest(own_bundle: Path, edit: Any, message: str) -> None:
    _edit(own_bundle, "decoder.onnx", edit)
    with pytest.raises(BundleError, match=message):
        open_onnxruntime(own_bundle)


def test_manifest_of_another_size(own_bundle: Path) -> None:
    bundle = open_bundle(own_bundle)
    (form,) = bundle.manifest.forms
    encoder = form.graphs["image_encoder"]
    image = replace(encoder.inputs[0], shape=("batch", 3, 32, 32))
    graphs = {**form.graphs, "image_encoder": replace(encoder, inputs=(image,))}
    rewrite_manifest(own_bundle, geometry=geometry(32, 64), forms=(replace(form, graphs=graphs),))
    with pytest.raises(BundleError, match=r"encoder.onnx has the input .*64, 64.* the manifest says .*32, 32"):
        open_onnxruntime(own_bundle)


def test_axis_whose_length_the_graph_leaves_open_is_accepted(own_bundle: Path) -> None:
    def forget(graph: onnx.GraphProto) -> None:
        for dim in graph.output[0].type.tensor_type.shape.dim:
            dim.dim_param = "unknown"

    _edit(own_bundle, "encoder.onnx", forget)
    open_onnxruntime(own_bundle).close()
