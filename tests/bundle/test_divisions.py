"""Graphs whose divisions of whole numbers could end the process are refused; others are taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from samrt.backends.onnxruntime import OnnxRuntimeEngine
from samrt.bundle import graph_check
from samrt.bundle.divisions import FLOATING, OF_ALL, OF_FIRST
from samrt.bundle.graph_check import check_graph
from samrt.errors import BackendError, BundleError

_CONSTANTS = {
    "half": np.array(0.5, np.float32),
    "two": np.array([2]),
    "ones": np.ones(4, np.int64),
    "minus": np.array(-1),
    "zero": np.array([1, 0, 1, 1]),
    "long": np.ones(1000, np.int64),
    "small": np.array([3], np.int32),
    "least": np.array(-(2**63)),
}
_SCAN = "y = Scan <num_scan_inputs=1, body = inner ({input}) => (float y_) {{ {body} }}> (x)"
_TAKEN = {
    "an input": "y = Div (x, x)",
    "a constant": "w = Shape (x) v = Cast <to=1> (w) y = Div (v, half)",
    "a positive number": "w = Shape (x) v = Div (w, two) y = Cast <to=1> (v)",
    "positive numbers": "w = Shape (x) v = Div (w, ones) y = Cast <to=1> (v)",
    "32 bits": "w = Cast <to=6> (x) v = Div (w, small) y = Cast <to=1> (v)",
    "a node": "c = Constant <value_int=3> () w = Cast <to=1> (c) y = Div (x, w)",
    "a constant's node": "c = Constant <value = int64[1] {2}> () w = Shape (x) v = Div (w, c) y = Cast <to=1> (v)",
    "what follows": "a = Transpose (x) b = Slice (a, two, two) c, d = Split (b) e = Sqrt (d) y = Div (d, e)",
    "a choice": "k = Greater (x, half) w = Where (k, half, x) y = Div (w, w)",
    "a body": _SCAN.format(input="float x_", body="y_ = Div (x_, x_)"),
    "a body's outside": _SCAN.format(input="float x_", body="y_ = Div (half, half)"),
}
_REFUSED = {
    "-1": "w = Shape (x) v = Div (w, minus) y = Cast <to=1> (v)",
    "0": "w = Shape (x) v = Div (w, zero) y = Cast <to=1> (v)",
    "many": "w = Shape (x) v = Div (w, long) y = Cast <to=1> (v)",
    "what is computed": "w = Cast <to=7> (x) v = Div (least, w) y = Cast <to=1> (v)",
    "a positive number that is divided": "w = Cast <to=7> (x) v = Div (two, w) y = Cast <to=1> (v)",
    "places": "k, w = TopK (x, two) v = Div (w, w) y = Cast <to=1> (v)",
    "what indices pick": "w = Shape (x) v = Gather (w, two) u = Div (v, v) y = Cast <to=1> (u)",
    "a constant's node": "c = Constant <value = int64[1] {-1}> () w = Shape (x) v = Div (w, c) y = Cast <to=1> (v)",
    "a name of outside": "w = Cast <to=7> (x) y = Scan <num_scan_inputs=1, body = inner (int64 half) => (float y_) "
    "{ v = Div (half, half) y_ = Cast <to=1> (v) }> (w)",
    "a constant of outside": "w = Cast <to=7> (x) y = Scan <num_scan_inputs=1, body = inner (int64 v) => (float y_) "
    "{ two = Constant <value_int=-1> () u = Div (v, two) y_ = Cast <to=1> (u) }> (w)",
    "a number that a node makes again": "two = Cast <to=7> (x) w = Div (least, two) y = Cast <to=1> (w)",
}


def _graph(tmp_path: Path, body: str) -> Path:
    graph = onnx.parser.parse_graph(f"g (float[4] x) => (float[n] y) {{ {body} }}")
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in _CONSTANTS.items())
    for attribute in (each for node in graph.node for each in node.attribute if each.HasField("t")):
        # As exporters write it: the parser takes another field.
        attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t)))
    path = tmp_path / "graph.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    return path


@pytest.mark.parametrize("body", _TAKEN.values(), ids=_TAKEN)
def test_safe_divisions_are_taken(body: str, tmp_path: Path) -> None:
    check_graph(_graph(tmp_path, body), [])


@pytest.mark.parametrize("body", _REFUSED.values(), ids=_REFUSED)
def test_divisions_that_could_end_the_process_are_refused(body: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="may divide whole numbers by zero or by -1"):
        check_graph(_graph(tmp_path, body), [])


@pytest.mark.parametrize("form", ["two types", "elsewhere", "beside it"])
def test_constants_that_protobuf_would_merge_are_no_divisors(form: str, tmp_path: Path) -> None:
    path = _graph(tmp_path, "w = Shape (x) v = Div (w, two) y = Cast <to=1> (v)")
    model = onnx.load(str(path))
    (tensor,) = (each for each in model.graph.initializer if each.name == "two")
    if form == "elsewhere":
        tensor.data_location = onnx.TensorProto.EXTERNAL
    elif form == "beside it":
        tensor.int64_data.append(-1)
    data = tensor.SerializeToString() + (b"\x10\x07" if form == "two types" else b"")
    model.graph.initializer.remove(tensor)
    graph = model.graph.SerializeToString() + b"\x2a" + bytes([len(data)]) + data
    path.write_bytes(b"\x3a" + bytes([len(graph) & 127 | 128, len(graph) >> 7 & 127 | 128, len(graph) >> 14]) + graph)
    with pytest.raises(BundleError, match="may divide whole numbers"):
        check_graph(path, [])


def test_many_divisions_take_one_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks = []
    computed = graph_check._computed
    monkeypatch.setattr(graph_check, "_computed", lambda graph: walks.append(1) or computed(graph))
    check_graph(_graph(tmp_path, "w = Shape (x) " + "v = Div (w, two) " * 9 + "y = Cast <to=1> (v)"), [])
    assert len(walks) == 1


def test_the_declared_type_of_a_bodys_input_is_its_type(tmp_path: Path) -> None:
    scan = _SCAN.format(input="float x_", body="y_ = Div (x_, x_)")
    with pytest.raises(BackendError, match="Tensor element type mismatch"):
        OnnxRuntimeEngine(_graph(tmp_path, f"w = Cast <to=7> (x) {scan.replace('(x)', '(w)')}"))


def test_the_standard_says_the_same_of_the_operators_types() -> None:
    floats = {f"tensor({name})" for name in ("float", "float16", "double", "bfloat16")}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain:
            continue
        kind = schema.outputs[0].type_str if schema.outputs else ""
        if schema.name in FLOATING:
            assert floats.issuperset(schema.outputs[0].types)
        if schema.name in OF_ALL:
            assert {each.type_str for each in schema.inputs} == {kind}
        if schema.name in OF_FIRST:
            assert schema.inputs[0].type_str == kind
