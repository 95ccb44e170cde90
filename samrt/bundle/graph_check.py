"""What a graph's file asks a runtime to do, found out before ONNX Runtime or TensorRT parses it.

Both take far more than samrt's exporter writes: loops without an end, functions nested until memory is full, weights
from any file on the disk. So the file is walked here first, field by field as protobuf lays it out (onnx/onnx.proto
names the fields). What protobuf of C++ would read otherwise than this walk is refused. Of tensors,
only small divisors are looked at.

The file is not mapped: a map of a file that is cut short meanwhile ends the process.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from samrt.bundle.divisions import Divisions
from samrt.bundle.protobuf import Field, NotOnnxError, fields_of, message, text, text_of
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
# A file of protobuf is never larger.
_LARGEST_FILE = (1 << 31) - 1

# Numbers of the fields that are looked at.
_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 11, 12, 15
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN, _FUNCTION_DEFAULT = 1, 7, 10, 11
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_TENSOR_NAME, _TENSOR_EXTERNAL = 8, 13
_VALUE_NAME = 1
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

_DO_NOT_TRUST = "do not use this bundle unless you trust where it came from, and export the checkpoint again"


def check_graph(path: Path, files: Collection[str]) -> None:
    """Find out whether a graph's file asks only for what samrt's exporter writes.

    Args:
        path: the ONNX file.
        files: the names of the files beside it, of which its weights may be in any.

    Raises:
        BundleError: it is no ONNX graph; it has an operator, a function, a division or a nest of graphs that no bundle
            needs; a node or a graph has no output; or its weights lie in a file that is none of `files`.
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
    except NotOnnxError as error:
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
        found = fields_of(data)
        functions = [value for number, value in found if number == _MODEL_FUNCTIONS]
        for function in functions:
            self._function(message(function))
        graphs = [value for number, value in found if number == _MODEL_GRAPH]
        if len(graphs) != 1:
            raise NotOnnxError(f"{len(graphs)} graphs in it")
        if any(number == _MODEL_TRAINING for number, _ in found):
            raise self._refusal("holds graphs for training")
        self._graph(message(graphs[0]), frozenset({*self._functions, PLUGIN_NAME}), 1, None)

    def _function(self, data: memoryview) -> None:
        fields = fields_of(data)
        name, domain = text_of(fields, _FUNCTION_NAME), text_of(fields, _FUNCTION_DOMAIN)
        if domain != OWN_DOMAIN:
            raise self._refusal(f"has a function {name!r} of the domain {domain!r}")
        before, known = self._nodes, Divisions()
        for number, value in fields:
            # A function that calls functions could double the graph with each.
            if number == _FUNCTION_NODE:
                self._node(message(value), frozenset(), nested=1, known=known)
            elif number == _FUNCTION_DEFAULT:
                self._attribute(message(value), frozenset(), nested=1, known=known)
        self._functions[name] += self._nodes - before

    def _graph(self, data: memoryview, own: Collection[str], nested: int, outer: Divisions | None) -> None:
        if nested > _MOST_NESTED:
            raise self._refusal(f"nests graphs more than {_MOST_NESTED} deep")
        fields = fields_of(data)
        numbers = {number for number, _ in fields}
        if _GRAPH_SPARSE in numbers:
            raise self._refusal("holds sparse tensors")
        if _GRAPH_OUTPUT not in numbers:
            raise self._refusal("has a graph without outputs")
        known = Divisions(outer, lambda: _computed(fields))
        for number, value in fields:
            if number == _GRAPH_INITIALIZER:
                tensor = fields_of(message(value))
                self._tensor(tensor)
                known.constant(text_of(tensor, _TENSOR_NAME), tensor)
            elif number == _GRAPH_INPUT:
                info = fields_of(message(value))
                known.input(text_of(info, _VALUE_NAME), info)
        for number, value in fields:
            if number == _GRAPH_NODE:
                self._node(message(value), own, nested, known)

    def _node(self, data: memoryview, own: Collection[str], nested: int, known: Divisions) -> None:
        """A node; of samrt's domain it may be one of `own`."""
        operator = domain = name = ""
        inputs, outputs, attributes = [], [], []
        for number, value in fields_of(data):
            if number == _NODE_ATTRIBUTE:
                attributes.append(message(value))
            elif number == _NODE_OUTPUT:
                outputs.append(text(value))
            elif number == _NODE_INPUT:
                inputs.append(text(value))
            elif number == _NODE_OPERATOR:
                operator = text(value)
            elif number == _NODE_DOMAIN:
                domain = text(value)
            elif number == _NODE_NAME:
                name = text(value)
        if not (operator in OPERATORS if domain == "" else domain == OWN_DOMAIN and operator in own):
            raise self._refusal(f"has a node {name!r} with the operator {operator!r} of the domain {domain!r}")
        self._nodes += 1 + (self._functions[operator] if domain == OWN_DOMAIN else 0)
        if self._nodes > _MOST_NODES:
            raise self._refusal(f"has more than {_MOST_NODES:,} nodes, with those of its functions")
        if not any(outputs):
            raise self._refusal(f"has a node {name!r} ({operator}) without an output")
        for attribute in attributes:
            self._attribute(attribute, own, nested, known)
        if domain == "" and not known.node(operator, inputs, outputs, attributes):
            raise self._refusal(f"has a node {name!r} that may divide whole numbers by zero or by -1")

    def _attribute(self, data: memoryview, own: Collection[str], nested: int, known: Divisions) -> None:
        for number, value in fields_of(data):
            if number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                self._tensor(fields_of(message(value)))
            elif number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                self._graph(message(value), own, nested + 1, known)
            elif number in (_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES):
                raise self._refusal("holds sparse tensors")

    def _tensor(self, fields: list[Field]) -> None:
        for number, value in fields:
            if number != _TENSOR_EXTERNAL:
                continue
            entry = fields_of(message(value))
            if text_of(entry, _ENTRY_KEY) != "location":
                continue
            location = text_of(entry, _ENTRY_VALUE)
            if location not in self._files:
                raise self._refusal(
                    f"takes the weights {text_of(fields, _TENSOR_NAME)!r} from {location!r}, which is no file of the "
                    "manifest"
                )

    def _refusal(self, what: str) -> BundleError:
        return BundleError(f"{self._path} {what}, which no graph of a bundle needs; {_DO_NOT_TRUST}")


def _computed(graph: list[Field]) -> set[str]:
    """Names of a graph's inputs, and of what its nodes make but constants."""
    names = set()
    for number, value in graph:
        if number == _GRAPH_INPUT:
            names.add(text_of(fields_of(message(value)), _VALUE_NAME))
        elif number == _GRAPH_NODE:
            node = fields_of(message(value))
            if text_of(node, _NODE_OPERATOR) != "Constant":
                names.update(text(output) for kind, output in node if kind == _NODE_OUTPUT)
    return names
