"""What a graph's file asks a runtime to do, found out before ONNX Runtime or TensorRT parses it.

Both take far more than samrt's exporter writes: loops without an end, functions nested until memory is full, weights
from any file on the disk. So the file is walked here first, field by field as protobuf lays it out (onnx/onnx.proto
names the fields). What protobuf of C++ would read otherwise than this walk is refused. No tensor is looked at.

The file is not mapped: a map of a file that is cut short meanwhile ends the process.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from samrt.errors import BundleError

# Domain of samrt's own functions and of its plugin's node.
OWN_DOMAIN = "samrt"
# As the plugin's creator in kernels/plugin says.
PLUGIN_NAME = "SamrtRelPosAttention"
# Standard operators from tensors to tensors: what encoders and decoders are made of. Not among them is what loops as
# often as a number in the graph says, makes sequences or strings, or draws random numbers.
OPERATORS = frozenset({
    "Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Ceil",
    "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvInteger", "ConvTranspose", "Cos", "CumSum",
    "DepthToSpace", "DequantizeLinear", "Div", "DynamicQuantizeLinear", "Einsum", "Elu", "Equal", "Erf", "Exp",
    "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization", "HardSigmoid", "HardSwish",
    "Identity", "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log",
    "LogSoftmax", "MatMul", "MatMulInteger", "Max", "MaxPool", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not",
    "OneHot", "Or", "PRelu", "Pad", "Pow", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "Range", "Reciprocal",
    "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round", "Scan", "ScatterElements", "ScatterND", "Selu",
    "Shape", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split", "Sqrt",
    "Squeeze", "Sub", "Sum", "Tan", "Tanh", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor"
})  # fmt: skip

# A Scan over groups of heads holds one over blocks of queries.
_MOST_NESTED = 3
# Those of a function count at each call: both runtimes copy it there. samrt's largest graphs have some thousands.
_MOST_NODES = 100_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10
# Protobuf keeps the low 32 bits of a field's key: what lies above them would show this walk another field.
_LARGEST_KEY = (1 << 32) - 1
# Fields of one message. samrt's largest graphs have some thousands; each takes a hundred times its bytes in memory.
_MOST_FIELDS = 100_000
# A file of protobuf is never larger.
_LARGEST_FILE = (1 << 31) - 1

# Numbers of the fields that are looked at.
_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 12, 15
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN, _FUNCTION_DEFAULT = 1, 7, 10, 11
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_TENSOR_NAME, _TENSOR_EXTERNAL = 8, 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

_DO_NOT_TRUST = "do not use this bundle unless you trust where it came from, and export the checkpoint again"


class _NotOnnxError(Exception):
    """The bytes are no message of protobuf, or not text where text belongs."""


def check_graph(path: Path, files: Collection[str]) -> None:
    """Find out whether a graph's file asks only for what samrt's exporter writes.

    Args:
        path: the ONNX file.
        files: the names of the files beside it, of which its weights may be in any.

    Raises:
        BundleError: it is no ONNX graph; it has an operator, a function or a nest of graphs that no bundle needs; a
            node or a graph has no output; or its weights lie in a file that is none of `files`.
        OSError: it cannot be read.
    """
    if path.suffix != ".onnx":  # ONNX Runtime takes some for its own format, which no one here can check
        raise BundleError(f"{path} is not called .onnx, so it is no graph of a bundle; export the checkpoint again")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        # Not more than it has: as many bytes as are asked for are allocated.
        data = file.read(min(size, _LARGEST_FILE))
    if size > _LARGEST_FILE:
        raise BundleError(f"{path} is larger than any ONNX graph; export the checkpoint again")
    try:
        _Walk(path, files).model(memoryview(data))
    except _NotOnnxError as error:
        raise BundleError(
            f"{path} is not an ONNX graph ({error}): it is damaged, or of another kind; export the checkpoint again"
        ) from None


class _Walk:
    def __init__(self, path: Path, files: Collection[str]) -> None:
        self._path = path
        self._files = frozenset(files)
        self._functions: Counter[str] = Counter()  # how many nodes each has
        self._nodes = 0

    def model(self, data: memoryview) -> None:
        found = list(_fields(data))
        functions = [value for number, value in found if number == _MODEL_FUNCTIONS]
        for function in functions:
            self._function(_bytes(function))
        graphs = [value for number, value in found if number == _MODEL_GRAPH]
        if len(graphs) != 1:
            raise _NotOnnxError(f"{len(graphs)} graphs in it")
        if any(number == _MODEL_TRAINING for number, _ in found):
            raise self._refusal("holds graphs for training")
        self._graph(_bytes(graphs[0]), frozenset({*self._functions, PLUGIN_NAME}), nested=1)

    def _function(self, data: memoryview) -> None:
        fields = list(_fields(data))
        name, domain = _text_of(fields, _FUNCTION_NAME), _text_of(fields, _FUNCTION_DOMAIN)
        if domain != OWN_DOMAIN:
            raise self._refusal(f"has a function {name!r} of the domain {domain!r}")
        before = self._nodes
        for number, value in fields:
            # A function that calls functions could double the graph with each.
            if number == _FUNCTION_NODE:
                self._node(_bytes(value), frozenset(), nested=1)
            elif number == _FUNCTION_DEFAULT:
                self._attribute(_bytes(value), frozenset(), nested=1)
        self._functions[name] += self._nodes - before

    def _graph(self, data: memoryview, own: Collection[str], nested: int) -> None:
        if nested > _MOST_NESTED:
            raise self._refusal(f"nests graphs more than {_MOST_NESTED} deep")
        outputs = 0
        for number, value in _fields(data):
            if number == _GRAPH_NODE:
                self._node(_bytes(value), own, nested)
            elif number == _GRAPH_INITIALIZER:
                self._tensor(_bytes(value))
            elif number == _GRAPH_SPARSE:
                raise self._refusal("holds sparse tensors")
            elif number == _GRAPH_OUTPUT:
                outputs += 1
        if not outputs:
            raise self._refusal("has a graph without outputs")

    def _node(self, data: memoryview, own: Collection[str], nested: int) -> None:
        """A node; of samrt's domain it may be one of `own`."""
        operator = domain = name = ""
        has_output = False
        attributes = []
        for number, value in _fields(data):
            if number == _NODE_ATTRIBUTE:
                attributes.append(_bytes(value))
            elif number == _NODE_OUTPUT:
                has_output |= _text(value) != ""
            elif number == _NODE_INPUT:
                _text(value)
            elif number == _NODE_OPERATOR:
                operator = _text(value)
            elif number == _NODE_DOMAIN:
                domain = _text(value)
            elif number == _NODE_NAME:
                name = _text(value)
        known = operator in OPERATORS if domain == "" else domain == OWN_DOMAIN and operator in own
        if not known:
            raise self._refusal(f"has a node {name!r} with the operator {operator!r} of the domain {domain!r}")
        self._nodes += 1 + (self._functions[operator] if domain == OWN_DOMAIN else 0)
        if self._nodes > _MOST_NODES:
            raise self._refusal(f"has more than {_MOST_NODES:,} nodes, with those of its functions")
        if not has_output:
            raise self._refusal(f"has a node {name!r} ({operator}) without an output")
        for attribute in attributes:
            self._attribute(attribute, own, nested)

    def _attribute(self, data: memoryview, own: Collection[str], nested: int) -> None:
        for number, value in _fields(data):
            if number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                self._tensor(_bytes(value))
            elif number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                self._graph(_bytes(value), own, nested + 1)
            elif number in (_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES):
                raise self._refusal("holds sparse tensors")

    def _tensor(self, data: memoryview) -> None:
        fields = list(_fields(data))
        for number, value in fields:
            if number != _TENSOR_EXTERNAL:
                continue
            entry = list(_fields(_bytes(value)))
            if _text_of(entry, _ENTRY_KEY) != "location":
                continue
            location = _text_of(entry, _ENTRY_VALUE)
            if location not in self._files:
                raise self._refusal(
                    f"takes the weights {_text_of(fields, _TENSOR_NAME)!r} from {location!r}, which is no file of the "
                    "manifest"
                )

    def _refusal(self, what: str) -> BundleError:
        return BundleError(f"{self._path} {what}, which no graph of a bundle needs; {_DO_NOT_TRUST}")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: bytes where it has a length, else a number."""
    place, end = 0, len(data)
    for count in itertools.count():
        if place == end:
            return
        if count == _MOST_FIELDS:
            raise _NotOnnxError(f"more than {_MOST_FIELDS:,} fields in one message")
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if number == 0 or key > _LARGEST_KEY:
            raise _NotOnnxError(f"a field of the number {number}")
        if kind in (_VARINT, _BYTES):
            value, place = _varint(data, place)
            if kind == _VARINT:
                yield number, value
                continue
            length = value
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise _NotOnnxError(f"a field of the kind {kind}")
        if length > end - place:
            raise _NotOnnxError("a field that reaches past its end")
        content = data[place : place + length]
        # Not bytes: protobuf skips a text or a message that is given in this form.
        yield number, content if kind == _BYTES else int.from_bytes(content, "little")
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    if place < len(data) and data[place] < 0x80:  # as nearly all have
        return data[place], place + 1
    value = shift = 0
    for byte in data[place : place + _VARINT_BYTES]:
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise _NotOnnxError("a number that does not end")


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _NotOnnxError("a number in the place of a message")
    return value


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_bytes(value)).decode()
    except UnicodeDecodeError:
        raise _NotOnnxError("a name that is not UTF-8") from None


def _text_of(fields: list[tuple[int, int | memoryview]], number: int) -> str:
    """The last value of a text field, as protobuf reads it; empty where there is none."""
    return next((_text(value) for found, value in reversed(fields) if found == number), "")
