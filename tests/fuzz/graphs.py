"""Small valid graphs with operators of all kinds, and changes of graphs, for the target `graph`."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx
from fuzz.mutations import mutate_bytes
from onnx import helper, numpy_helper
from toy_bundle import STRIDE, C, S

from samrt.bundle.graph_check import OPERATORS

_SIDE = S // STRIDE
# From `a`, a feature of the toy encoder, to `b`, with the constants below.
_BODIES = (
    "b = Conv <pads=[1, 0, 1, 0], strides=[2, 1], dilations=[1, 2]> (a, kernel)",
    "b = Conv <group=8> (a, depthwise)",
    "b = ConvTranspose <strides=[2, 2], output_padding=[1, 1]> (a, kernel)",
    "b = MaxPool <kernel_shape=[3, 3], ceil_mode=1, pads=[1, 1, 1, 1]> (a)",
    'b = Resize <mode="cubic"> (a, , scales)',
    'b = Resize <mode="linear"> (a, , , sizes)',
    'b = Pad <mode="reflect"> (a, pads)',
    "b = Slice (a, two, four, two, one)",
    "b, i = TopK (a, three)",
    "b = GatherND (a, rows)",
    "b = GatherElements <axis=1> (a, places)",
    'b = ScatterND <reduction="add"> (a, points, ones_2)',
    "b = ScatterElements <axis=3> (a, places, updates)",
    'b = GridSample <padding_mode="reflection"> (a, grid)',
    'b = Einsum <equation="bcij,bdij->bcd"> (a, a)',
    "b = LayerNormalization <axis=-1> (a, ones_16)",
    "b = GroupNormalization <num_groups=2> (a, ones_2, ones_2)",
    "b = InstanceNormalization (a, ones_8, ones_8)",
    "b = BatchNormalization (a, ones_8, ones_8, ones_8, ones_8)",
    "b = MatMul (a, matrix)",
    "f = Flatten (a) b = Gemm <alpha=0.5, transB=1> (f, weights)",
    'b = DepthToSpace <blocksize=2, mode="CRD"> (a)',
    "b = SpaceToDepth <blocksize=4> (a)",
    "b, c = Split <axis=1, num_outputs=2> (a)",
    "b = Trilu <upper=0> (a, scalar)",
    "b = CumSum <exclusive=1> (a, scalar)",
    "b = Tile (a, repeats)",
    "b = Expand (a, shape)",
    "w = Cast <to=7> (a) b = OneHot <axis=1> (w, scalar, ones_2)",
    "b = Range (zero, scalar, scalar)",
    *(
        f"w = Cast <to={to}> (a) u = Cast <to={to}> (three) b = {op} (w, u)"
        for op in ("Mod", "Div")
        for to in (2, 6, 7)
    ),
    "w = Cast <to=7> (a) b = Pow (w, three)",
    "q, s, z = DynamicQuantizeLinear (a) b = DequantizeLinear (q, s, z)",
    "q, s, z = DynamicQuantizeLinear (a) b = ConvInteger (q, bytes, z)",
    "q = QuantizeLinear <axis=1> (a, ones_8, zeros_8) b = DequantizeLinear <axis=1> (q, ones_8, zeros_8)",
    "k = Shape <start=1, end=9> (a) b = ConstantOfShape (k)",
    "k = Greater (a, half) b = Where (k, a, half)",
    "r = Reshape (a, minus) b = Transpose <perm=[1, 0]> (r)",
    "b = Unsqueeze (a, one)",
    "b = ArgMax <axis=2, select_last_index=1> (a)",
    "b = Softmax <axis=1> (a)",
    "b = ReduceLogSumExp <noop_with_empty_axes=1> (a, one)",
    "b = Concat <axis=-3> (a, a)",
    "b = Clip (a, half, half)",
    *(
        f"b = {name} (a)"
        for name in ("Gelu", "Elu", "HardSwish", "Mish", "Erf", "LogSoftmax", "GlobalMaxPool", "Identity")
    ),
    "b = Scan <num_scan_inputs=1, scan_input_axes=[1], body = inner (float[n, h, w] x) => (float[n, h, w] y) "
    "{ y = Relu (x) }> (a)",
)
_CONSTANTS: dict[str, Any] = {
    "mix": np.ones((C, 3, 1, 1), np.float32),
    "kernel": np.ones((C, C, 2, 2), np.float32),
    "depthwise": np.ones((C, 1, 3, 3), np.float32),
    "bytes": np.ones((C, C, 2, 2), np.uint8),
    "matrix": np.ones((C, _SIDE, 3), np.float32),
    "weights": np.ones((2, C * _SIDE**2), np.float32),
    "grid": np.zeros((1, 3, 3, 2), np.float32),
    "scales": np.array([1, 1, 2, 0.5], np.float32),
    "sizes": np.array([1, C, 5, 40]),
    "pads": np.array([0, 0, 1, 2, 0, 0, 3, 4]),
    "shape": np.array([2, C, 1, 1]),
    "repeats": np.array([1, 2, 1, 3]),
    "minus": np.array([C, -1]),
    "rows": np.zeros((2, 2), np.int64),
    "points": np.zeros((2, 4), np.int64),
    "places": np.zeros((1, 1, 2, 2), np.int64),
    "updates": np.ones((1, 1, 2, 2), np.float32),
    "zeros_8": np.zeros(C, np.uint8),
    "zero": np.array(0),
    "scalar": np.array(1),
    "half": np.array(0.5, np.float32),
    **{name: np.array([n]) for n, name in enumerate(("one", "two", "three", "four"), 1)},
    **{f"ones_{n}": np.ones(n, np.float32) for n in (2, 8, 16)},
}

_NUMBERS = (0, 1, -1, 2, 3, 4, 7, -2, 64, 100, 2**31 - 1, -(2**31), 2**31, 2**33, 2**62, -(2**63), 2**63 - 1)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, float("nan"), float("inf"), -float("inf"))
_TEXTS = (
    *(
        "",
        "linear",
        "cubic",
        "nearest",
        "reflect",
        "edge",
        "wrap",
        "SAME_UPPER",
        "VALID",
        "border",
        "align_corners",
        "max",
    ),
    *("asymmetric", "tf_crop_and_resize", "bicubic", "add", "...ab,...bc->...ac", "ii->i", "\x1b", "x" * 999),
)
_ATTRIBUTES = (
    *(
        "axis",
        "axes",
        "kernel_shape",
        "pads",
        "strides",
        "dilations",
        "group",
        "to",
        "mode",
        "perm",
        "blocksize",
        "value",
    ),
    *("keepdims", "num_outputs", "num_groups", "auto_pad", "output_padding", "output_shape", "ceil_mode", "equation"),
    *(
        "count_include_pad",
        "storage_order",
        "batch_dims",
        "num_scan_inputs",
        "scan_input_axes",
        "epsilon",
        "alpha",
        "fmod",
    ),
    *("coordinate_transformation_mode", "exclude_outside", "align_corners", "padding_mode", "exclusive", "allowzero"),
    *(
        "noop_with_empty_axes",
        "select_last_index",
        "largest",
        "upper",
        "transA",
        "value_ints",
        "scan_output_directions",
    ),
)


def encoders() -> list[bytes]:
    """The toy's encoder, each with one of the bodies between its features and what is added to them."""
    return [_encoder(body) for body in _BODIES]


def _encoder(body: str) -> bytes:
    graph = onnx.parser.parse_graph(f"""
        g (float[n, 3, {S}, {S}] image) => (float[n, {C}, {_SIDE}, {_SIDE}] image_embeddings) {{
            pooled = AveragePool <kernel_shape=[{STRIDE}, {STRIDE}], strides=[{STRIDE}, {STRIDE}]> (image)
            a = Conv (pooled, mix)
            {body}
            float = Cast <to=1> (b)
            mean = ReduceMean <keepdims=0> (float)
            image_embeddings = Add (a, mean)
        }}""")
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in _CONSTANTS.items() if name in used)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def change(model: onnx.ModelProto, rng: random.Random) -> None:
    """One change of a graph in place.

    Raises:
        ValueError, TypeError, IndexError, OverflowError: a value was chosen that its field does not hold.
    """
    graph = model.graph
    kind = rng.randrange(14)
    node = rng.choice(graph.node)
    names = [name for each in graph.node for name in (*each.input, *each.output)] + [t.name for t in graph.initializer]
    if kind <= 1:
        node.op_type = rng.choice(sorted(OPERATORS))
    elif kind <= 4:
        _change_attribute(node, rng)
    elif kind == 5:
        node.input.append(rng.choice(names)) if rng.random() < 0.4 else node.input.pop()
    elif kind == 6:
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, ""])
    elif kind == 7:
        taken = [rng.choice(names) for _ in range(rng.randint(1, 3))]
        node.input[0] = "new"
        graph.node.insert(
            rng.randrange(len(graph.node)), helper.make_node(rng.choice(sorted(OPERATORS)), taken, ["new"])
        )
    elif kind == 8:
        graph.node.pop(rng.randrange(len(graph.node)))
    elif kind <= 11:
        _change_tensor(rng.choice(graph.initializer), rng)
    elif kind == 12:
        _change_type(rng.choice([*graph.input, *graph.output, *graph.value_info]), rng)
    else:
        model.opset_import[0].version = rng.choice((1, 7, 11, 13, 17, 18, 21, 22, 25, 2**40))
        model.ir_version = rng.choice((3, 7, 8, 10, 12, 2**40))


def _change_attribute(node: onnx.NodeProto, rng: random.Random) -> None:
    if rng.random() < 0.15:
        node.attribute.pop(rng.randrange(len(node.attribute)))
        return
    if rng.random() < 0.7 and node.attribute:
        attribute = rng.choice(node.attribute)
    else:
        attribute = node.attribute.add()
        attribute.CopyFrom(helper.make_attribute(rng.choice(_ATTRIBUTES), _value(rng)))
    if attribute.ints and rng.random() < 0.7:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(_NUMBERS)
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = rng.choice(_NUMBERS)
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = rng.choice(_FLOATS)
    elif attribute.type == onnx.AttributeProto.STRING:
        attribute.s = rng.choice(_TEXTS).encode()
    elif attribute.type == onnx.AttributeProto.GRAPH:
        rng.choice(attribute.g.node).op_type = rng.choice(sorted(OPERATORS))
    else:
        attribute.CopyFrom(helper.make_attribute(attribute.name, _value(rng)))


def _value(rng: random.Random) -> Any:
    numbers = [rng.choice(_NUMBERS) for _ in range(rng.randint(1, 5))]
    tensor = numpy_helper.from_array(np.array(numbers, np.int64))
    return rng.choice((rng.choice(_FLOATS), rng.choice(_TEXTS), tensor, numbers, numbers[0]))


def _change_tensor(tensor: onnx.TensorProto, rng: random.Random) -> None:
    kind = rng.randrange(8)
    if tensor.external_data:
        rng.choice(tensor.external_data).value = str(rng.choice((*_NUMBERS, "", "encoder.weights", "x", "1e3")))
    elif kind == 0:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_NUMBERS)
    elif kind == 1:
        tensor.data_type = rng.randrange(0, 25)
    elif kind == 2:
        tensor.raw_data = mutate_bytes(tensor.raw_data, rng)
    else:
        array = numpy_helper.to_array(tensor).copy()
        value = rng.choice(
            _FLOATS if array.dtype.kind == "f" else [n for n in _NUMBERS if abs(n) < 128 or array.itemsize == 8]
        )
        if kind == 3:
            array = np.full(rng.choice(((), (0,), (1,), (1, 1, 1, 1), (7,))), value, array.dtype)
        elif kind == 4:
            array[...] = value
        else:
            array.reshape(-1)[rng.randrange(array.size)] = value
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _change_type(info: onnx.ValueInfoProto, rng: random.Random) -> None:
    kind = info.type.tensor_type
    if rng.random() < 0.3:
        kind.elem_type = rng.randrange(0, 25)
        return
    axis = rng.choice(kind.shape.dim)
    if rng.random() < 0.6:
        axis.dim_value = rng.choice(_NUMBERS)
    else:
        axis.dim_param = rng.choice(("", "n", "batch", "\x1b[2J"))
