"""Exports with the plugin's node: what TensorRT's parser is given, and that a wrong node does not get past export."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnx.helper
import onnx.parser
import pytest
import torch
from oracle import photograph
from seeded import PLUGIN_VIT
from torch import Tensor, nn

import samrt
from samrt.bundle.contract import Graph
from samrt.bundle.folder import open_bundle
from samrt.bundle.precisions import PRECISIONS
from samrt.engines import plugin as names
from samrt.errors import BackendError, ExportError, InputError, SamrtError
from samrt_export import forms
from samrt_export.lowering import resolve
from samrt_export.lowering.plugin import with_definition
from samrt_export.models.image_encoder_vit import ImageEncoderViT
from samrt_export.pipeline import ExportOptions, export

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
HALF_BOUND = PRECISIONS["fp16"].tolerance.embedding_relative_l2


# What the parser is given


@pytest.fixture(scope="module")
def encoder(exported_plugin: Path) -> Path:
    return exported_plugin / "image_encoder.fp16-plugin.onnx"


def test_every_attention_layer_is_one_node(encoder: Path) -> None:
    model = onnx.load(str(encoder))
    nodes = [node for node in model.graph.node if node.op_type == names.PLUGIN_NAME]
    attributes = [{each.name: onnx.helper.get_attribute_value(each) for each in node.attribute} for node in nodes]
    both = {"num_heads": 2, "head_dim": 64, "plugin_version": b"1", "plugin_namespace": b""}
    assert attributes == [{**both, "window_size": 5}, {**both, "window_size": 0}]
    initializers = {each.name: each for each in model.graph.initializer}
    for index, node in enumerate(nodes):
        inside = [initializers[name] for name in node.input[1:]]
        layer = f"image_encoder.blocks.{index}.attn"
        assert [each.name for each in inside] == [f"{layer}.{name}" for name in ("qkv.bias", "rel_pos_h", "rel_pos_w")]
        # A strongly typed network casts nothing.
        assert {each.data_type for each in inside} == {onnx.TensorProto.FLOAT16}
    # Nothing of it is left beside: neither a softmax nor a window.
    assert {node.op_type for node in model.graph.node} == {
        *("Conv", "Reshape", "Transpose", "Add", "LayerNormalization", "Gemm", "Gelu", "Cast"),
        names.PLUGIN_NAME,
    }


def test_the_file_is_valid_and_does_not_define_the_node(encoder: Path) -> None:
    """Some versions of TensorRT would build the definition instead of the plugin."""
    onnx.checker.check_model(str(encoder))
    model = onnx.load(str(encoder), load_external_data=False)
    assert len(model.functions) == 0
    assert {each.domain: each.version for each in model.opset_import} == {"": 20, "samrt": 1}


def test_the_copy_with_the_definition_is_valid_and_goes_again(encoder: Path) -> None:
    before = sorted(path.name for path in encoder.parent.iterdir())
    with with_definition(encoder) as copy:
        onnx.checker.check_model(str(copy))
        assert copy.parent == encoder.parent
    assert sorted(path.name for path in encoder.parent.iterdir()) == before


# Its own process: the registry is the process's, and a crash of the parser is no crash of the tests.
_PARSE = """
import json, sys
import numpy as np
import tensorrt_rtx as trt

class Creator(trt.IPluginCreatorV3One):
    def __init__(self):
        trt.IPluginCreatorV3One.__init__(self)
        self.name, self.plugin_version, self.plugin_namespace = sys.argv[2:5]
        fields = [trt.PluginField(name, np.array([], np.int32), trt.PluginFieldType.INT32) for name in sys.argv[5:]]
        self.field_names = trt.PluginFieldCollection(fields)
        self.given = []
    def create_plugin(self, name, fields, phase):
        self.given.append({field.name: [str(field.type), *field.data.tolist()] for field in fields})
        return None  # TensorRT-RTX has no layer to put a plugin into

logger = trt.Logger(trt.Logger.ERROR)
creator = Creator()
assert trt.get_plugin_registry().register_creator(creator, sys.argv[4])
network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, logger)
assert not parser.parse_from_file(sys.argv[1])
print(json.dumps({"given": creator.given, "errors": [parser.get_error(i).desc() for i in range(parser.num_errors)]}))
"""


@pytest.mark.parametrize(
    ("registered", "found"),
    [
        ((names.PLUGIN_NAME, names.PLUGIN_VERSION, names.PLUGIN_NAMESPACE), True),
        ((names.PLUGIN_NAME, "2", names.PLUGIN_NAMESPACE), False),
        (("Other", names.PLUGIN_VERSION, names.PLUGIN_NAMESPACE), False),
    ],
)
def test_tensorrts_parser_finds_the_plugin_and_gives_it_the_attributes(
    encoder: Path, registered: tuple[str, ...], found: bool
) -> None:
    """TensorRT-RTX's, which looks plugins up like TensorRT's; it cannot go on from there."""
    pytest.importorskip("tensorrt_rtx")
    fields = ("num_heads", "head_dim", "window_size")
    done = subprocess.run(
        [sys.executable, "-c", _PARSE, str(encoder), *registered, *fields], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    whole = {"num_heads": 2, "head_dim": 64, "window_size": 5}
    expected = [{name: ["PluginFieldType.INT32", value] for name, value in whole.items()}]
    assert said["given"] == (expected if found else [])
    assert re.search("Could not create the plugin" if found else "Plugin not found", said["errors"][0])


def test_names_and_head_dims_are_those_of_the_kernels() -> None:
    header = (KERNELS / "plugin" / "samrt_plugin.h").read_text()
    constants = dict(re.findall(r'constexpr const char\* (kPlugin\w+) = "(.*)";', header))
    assert constants == {
        "kPluginName": names.PLUGIN_NAME,
        "kPluginVersion": names.PLUGIN_VERSION,
        "kPluginNamespace": names.PLUGIN_NAMESPACE,
    }
    compiled = re.findall(
        r"^INSTANCE\(__half, (\d+), \d+, true\)", (KERNELS / "attention/instances.def").read_text(), re.M
    )
    assert {int(head_dim) for head_dim in compiled} == set(names.HEAD_DIMS)


# Whole exports


def test_a_bundle_with_the_plugins_form(exported_plugin: Path) -> None:
    manifest = open_bundle(exported_plugin).manifest
    assert [form.name for form in manifest.forms] == ["fp32-chunked", "fp16-plugin"]
    verification = manifest.forms[1].verification
    for figures in (verification["figures"], verification["figures_in_half_arithmetic"]):
        assert 1e-5 < figures["embedding_relative_l2"] <= HALF_BOUND
        assert len(figures["prompts"]) == 6
    assert verification["attention"] == "SamrtRelPosAttention as defined in standard operators; no kernel was run"
    assert {path.name for path in exported_plugin.iterdir()} == {"manifest.json", *manifest.files}
    with samrt.load(exported_plugin) as model:
        assert str(model.choice) == "onnxruntime, fp32-chunked"
        assert model.predict(model.encode(photograph(60, 90)), box=[10, 10, 60, 40]).masks.shape[1:] == (60, 90)


Change = Callable[[onnx.NodeProto], None]


def attributes(**values: int) -> Change:
    """Set attributes of the node."""

    def change(node: onnx.NodeProto) -> None:
        for each in node.attribute:
            if each.name in values:
                each.i = values[each.name]

    return change


def inputs(*order: int) -> Change:
    """Give the node its inputs in another order."""

    def change(node: onnx.NodeProto) -> None:
        node.input[:] = [node.input[index] for index in order]

    return change


# The node's inputs are qkv, qkv_bias, rel_pos_h and rel_pos_w. The first is of a layer in windows.
WRONG: dict[str, tuple[int, Change, type[SamrtError]]] = {
    "tables in the wrong order, in windows": (0, inputs(0, 1, 3, 2), ExportError),
    "tables in the wrong order, global": (1, inputs(0, 1, 3, 2), ExportError),
    "a global layer in windows": (1, attributes(window_size=14), ExportError),
    "windows of another size": (0, attributes(window_size=4), ExportError),
    # These cannot be computed at all.
    "half as many heads": (1, attributes(num_heads=1, head_dim=128), BackendError),
    "windows too large for the tables": (0, attributes(window_size=0), BackendError),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_node_is_not_exported(
    what: str, exported_plugin: Path, plugin_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison with the checkpoint notices it. The exporter is played by one that writes what it had written."""
    index, change, failure = WRONG[what]
    changed: list[onnx.NodeProto] = []

    def export_graph(
        module: nn.Module, graph: Graph, samples: tuple[Tensor, ...], folder: Path, weights: str = ""
    ) -> None:
        for name in filter(None, (graph.file, weights)):
            shutil.copyfile(exported_plugin / name, folder / name)
        if weights:
            model = onnx.load(str(folder / graph.file), load_external_data=False)
            nodes = [node for node in model.graph.node if node.op_type == names.PLUGIN_NAME]
            before = nodes[index].SerializeToString()
            change(nodes[index])
            changed.extend([nodes[index]] if nodes[index].SerializeToString() != before else [])
            onnx.save(model, str(folder / graph.file))

    monkeypatch.setattr(forms, "export_graph", export_graph)
    with pytest.raises(failure, match=r"differ from the checkpoint by more than the tolerance|ONNX Runtime failed"):
        export(plugin_checkpoint, tmp_path / "bundle", ExportOptions(lowering="plugin", precisions=("fp16",)))
    assert len(changed) == 1
    assert not list(tmp_path.iterdir())


# Refusals


def encoder_of(head_dim: int) -> ImageEncoderViT:
    with torch.device("meta"):
        return ImageEncoderViT(replace(PLUGIN_VIT, head_dim=head_dim, embed_dim=2 * head_dim))


@pytest.mark.parametrize("head_dim", names.HEAD_DIMS)
def test_resolves_for_heads_that_the_kernel_has(head_dim: int) -> None:
    assert resolve("plugin", encoder_of(head_dim), "fp16") == "plugin"
    assert resolve("auto", encoder_of(head_dim), "fp16") == "augmented"


def test_refuses_other_heads() -> None:
    with pytest.raises(InputError, match="and this encoder has 32; use lowering='augmented'"):
        resolve("plugin", encoder_of(32), "fp16")


def test_refuses_single_precision() -> None:
    with pytest.raises(InputError, match=r"half precision, not in fp32; use precisions=.*'auto', 'plugin'"):
        resolve("plugin", encoder_of(64), "fp32")


@pytest.mark.parametrize(
    ("lowering", "precisions"), [(("auto", "plugin"), ("fp16",)), (("auto",) * 3, ("fp32", "fp16")), ((), ("fp32",))]
)
def test_refuses_other_than_one_lowering_or_one_for_each_precision(
    plugin_checkpoint: Path, tmp_path: Path, lowering: tuple[str, ...], precisions: tuple[str, ...]
) -> None:
    with pytest.raises(InputError, match=r"lowerings? .*give one for all, or one for each"):
        export(plugin_checkpoint, tmp_path / "bundle", ExportOptions(lowering=lowering, precisions=precisions))
    assert not list(tmp_path.iterdir())
