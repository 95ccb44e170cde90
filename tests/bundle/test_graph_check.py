"""A graph's file asks a runtime for nothing but what bundles need, or is refused before one parses it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from toy_bundle import rewrite_manifest

import samrt
from samrt.backends.onnxruntime import OnnxRuntimeEngine
from samrt.bundle.folder import open_bundle
from samrt.bundle.graph_check import OPERATORS, PLUGIN_NAME, check_graph
from samrt.errors import BundleError

pytest_plugins = ("toy_fixtures",)

_X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
_Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
_RELU = helper.make_node("Relu", ["x"], ["y"], name="relu")


def _graph(*nodes: onnx.NodeProto, **options: object) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "graph", [_X], options.pop("outputs", [_Y]), **options)


def _body(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "body", [_X], [_Y])


def _nested(depth: int) -> onnx.NodeProto:
    inner = _RELU if depth == 0 else _nested(depth - 1)
    return helper.make_node("Scan", ["x"], ["y"], body=_body(inner), num_scan_inputs=1)


def _weights_from(location: str, name: str = "w") -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.ones(1, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def _function(domain: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    return helper.make_function(domain, "f", ["x"], ["y"], list(nodes), [helper.make_opsetid("", 20)])


def _with_functions(graph: onnx.GraphProto, *functions: onnx.FunctionProto) -> onnx.ModelProto:
    return helper.make_model(graph, functions=list(functions))


def _loop() -> onnx.NodeProto:
    return helper.make_node("Loop", ["", "", "x"], ["y"], body=_body(_RELU))


def _with_default(function: onnx.FunctionProto, attribute: onnx.AttributeProto) -> onnx.FunctionProto:
    function.attribute_proto.append(attribute)
    return function


def _own(name: str) -> onnx.NodeProto:
    return helper.make_node(name, ["x"], ["y"], domain="samrt")


_F = _own("f")
_REFUSED = {
    "a loop": (helper.make_model(_graph(_loop())), "operator 'Loop'"),
    "a loop in a scan": (
        helper.make_model(_graph(helper.make_node("Scan", ["x"], ["y"], body=_body(_loop())))),
        "operator 'Loop'",
    ),
    "a loop in a function": (_with_functions(_graph(_F), _function("samrt", _loop())), "operator 'Loop'"),
    "a sequence": (helper.make_model(_graph(helper.make_node("SequenceEmpty", [], ["y"]))), "'SequenceEmpty'"),
    "another domain": (
        helper.make_model(_graph(helper.make_node("Relu", ["x"], ["y"], domain="com.microsoft"))),
        "domain 'com.microsoft'",
    ),
    "an operator of nobody": (helper.make_model(_graph(helper.make_node("f", ["x"], ["y"], domain="samrt"))), "'f'"),
    "deep nests": (helper.make_model(_graph(_nested(2))), "more than 3 deep"),
    "a function of another domain": (_with_functions(_graph(_RELU), _function("x", _RELU)), "function 'f' of the"),
    "a function that calls one": (_with_functions(_graph(_F), _function("samrt", _F)), "operator 'f'"),
    "a function of the plugin's name that calls it": (
        _with_functions(_graph(_own(PLUGIN_NAME)), _function("samrt", _own(PLUGIN_NAME))),
        "operator 'SamrtRelPosAttention'",
    ),
    "a long function that is often called": (
        _with_functions(_graph(*[_F] * 400), _function("samrt", *[_RELU] * 400)),
        "more than 100,000 nodes",
    ),
    "other weights in a function's default": (
        _with_functions(
            _graph(_F),
            _with_default(_function("samrt", _RELU), helper.make_attribute("value", _weights_from("hidden.bin"))),
        ),
        "hidden.bin",
    ),
    "no output of a node": (helper.make_model(_graph(helper.make_node("ReduceSum", ["x"], []))), "without an output"),
    "an unnamed output": (helper.make_model(_graph(helper.make_node("Relu", ["x"], [""]))), "without an output"),
    "no output": (helper.make_model(_graph(_RELU, outputs=[])), "graph without outputs"),
    "other weights": (
        helper.make_model(_graph(_RELU, initializer=[_weights_from("hidden.bin")])),
        "'w' from 'hidden.bin', which is no file of the manifest",
    ),
    "climbing weights": (
        helper.make_model(_graph(_RELU, initializer=[_weights_from("../known.weights")])),
        r"from '\.\./known.weights'",
    ),
    "other weights in an attribute": (
        helper.make_model(_graph(helper.make_node("Constant", [], ["y"], value=_weights_from("hidden.bin")))),
        "hidden.bin",
    ),
    "other weights in a body": (
        helper.make_model(
            _graph(
                helper.make_node(
                    "Scan",
                    ["x"],
                    ["y"],
                    body=helper.make_graph([_RELU], "body", [_X], [_Y], [_weights_from("hidden.bin")]),
                )
            )
        ),
        "hidden.bin",
    ),
}


@pytest.mark.parametrize("name", _REFUSED)
def test_what_no_bundle_needs_is_refused(name: str, tmp_path: Path) -> None:
    model, text = _REFUSED[name]
    path = tmp_path / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=text):
        check_graph(path, ["known.weights"])


def test_what_bundles_have_is_taken(tmp_path: Path) -> None:
    model = _with_functions(
        _graph(_F, _nested(1), initializer=[_weights_from("known.weights")]), _function("samrt", _nested(1))
    )
    path = tmp_path / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    check_graph(path, ["known.weights"])


def test_all_known_operators_exist() -> None:
    schemas = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    assert schemas >= OPERATORS


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("graph.onnx", b"", "0 graphs in it"),
        ("graph.onnx", b"<html>not found</html>", "not an ONNX graph"),
        ("graph.onnx", b"\x08\x0a", "0 graphs in it"),
        ("graph.onnx", b"\x0f", "a field of the kind 7"),
        ("graph.onnx", b"\x3a\x7f", "reaches past its end"),
        ("graph.onnx", b"\x08" + b"\xff" * 11, "a number that does not end"),
        ("graph.onnx", b"\x3a\x04\x0a\x02\x0a\x00" + b"\x3a\x00", "2 graphs in it"),
        ("graph.ort", b"\x08\x0a", r"is not called \.onnx"),
    ],
)
def test_no_graph(name: str, content: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match=text):
        check_graph(tmp_path / name, [])


def _message(number: int, content: bytes) -> bytes:
    """A field of a number below 16, with less than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


_LOCATION = b"\x0a\x08location\x12\x0ahidden.bin"
_DISGUISED = {
    # The key of `external_data` with bit 32 set, which protobuf drops.
    "a field of the number 536870925": b"\xea\x80\x80\x80\x10" + bytes([len(_LOCATION)]) + _LOCATION,
    # The entry's key again, as a fixed number of 64 bits, which protobuf skips.
    "a number in the place of a message": _message(13, _LOCATION + b"\x09checksum"),
}


@pytest.mark.parametrize("text", _DISGUISED)
def test_what_protobuf_reads_otherwise_is_no_graph(text: str, tmp_path: Path) -> None:
    tensor = _weights_from("hidden.bin")
    tensor.ClearField("external_data")
    graph = _graph(helper.make_node("Add", ["x", "w"], ["y"])).SerializeToString()
    graph += _message(5, tensor.SerializeToString() + _DISGUISED[text])
    model = helper.make_model(
        helper.make_graph([], "", [], []), ir_version=10, opset_imports=[helper.make_opsetid("", 20)]
    )
    model.ClearField("graph")
    path = tmp_path / "graph.onnx"
    path.write_bytes(model.SerializeToString() + _message(7, graph))
    (tmp_path / "hidden.bin").write_bytes(np.full(1, 7, np.float32).tobytes())
    with pytest.raises(BundleError, match=text):
        check_graph(path, [])
    # ONNX Runtime would read the file.
    (result,) = OnnxRuntimeEngine(path).run({"x": np.ones(1, np.float32)}).values()
    assert result == 8


def test_no_message_has_too_many_fields(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"\x08\x00" * 100_001)
    with pytest.raises(BundleError, match="more than 100,000 fields"):
        check_graph(path, [])


def test_no_damage_ends_in_another_error(toy_bundle: Path, tmp_path: Path) -> None:
    whole = (toy_bundle / "decoder.onnx").read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "graph.onnx"
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole[: random.integers(1, len(whole) + 1)])
        for place in random.integers(0, len(damaged), 3):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            check_graph(path, [])
        except BundleError:
            refused += 1
    assert refused > 150


def test_a_bundle_is_refused_before_anything_is_loaded(own_bundle: Path) -> None:
    model = onnx.load(str(own_bundle / "encoder.onnx"), load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "hidden.bin"
    (own_bundle / "encoder.weights").rename(own_bundle / "hidden.bin")
    (own_bundle / "encoder.weights").write_bytes(b"listed")
    (own_bundle / "encoder.onnx").write_bytes(model.SerializeToString())
    rewrite_manifest(own_bundle)
    with pytest.raises(BundleError, match=r"hidden\.bin.*do not use this bundle unless you trust"):
        samrt.load(own_bundle)
    bundle = open_bundle(own_bundle)
    with pytest.raises(BundleError, match=r"hidden\.bin"):
        bundle.graph_file(bundle.manifest.forms[0].graphs["image_encoder"])
