"""Which tensors of a graph are certainly floating, so that a division of them cannot end the process.

ONNX Runtime divides whole numbers as the processor does, which ends the process by a signal at the smallest one divided
by -1. A graph does not say the types of its tensors. So a division is taken where one of its operands is certainly
floating, or the divisor is a constant of positive whole numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Sequence

from samrt.bundle.protobuf import Field, fields_of, message, text_of

# In all versions of the standard, the first output of these has a floating type,
FLOATING = frozenset({
    "AveragePool", "BatchNormalization", "Ceil", "Conv", "ConvTranspose", "Cos", "DequantizeLinear", "Elu", "Exp",
    "Floor", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "GroupNormalization", "HardSigmoid", "HardSwish",
    "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "Mean", "Mish", "Reciprocal",
    "Round", "Selu", "Sigmoid", "Sin", "Softmax", "Softplus", "Sqrt", "Sum", "Tan", "Tanh"
})  # fmt: skip
# of these, the type of all inputs,
OF_ALL = frozenset({
    "Abs", "Add", "Clip", "Concat", "DepthToSpace", "Div", "Einsum", "Erf", "Flatten", "Gemm", "Identity", "MatMul",
    "Max", "MaxPool", "Min", "Mod", "Mul", "Neg", "PRelu", "Range", "Relu", "Sign", "SpaceToDepth", "Sub", "Transpose"
})  # fmt: skip
# and of these, the type of the first input.
OF_FIRST = frozenset({
    "CumSum", "Expand", "Gather", "GatherElements", "GatherND", "GridSample", "Pad", "Pow", "ReduceL1", "ReduceL2",
    "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Reshape",
    "Resize", "ScatterElements", "ScatterND", "Slice", "Split", "Squeeze", "Tile", "TopK", "Trilu", "Unsqueeze"
})  # fmt: skip
_FLOATS = (1, 10, 11, 16)  # FLOAT, FLOAT16, DOUBLE, BFLOAT16 of TensorProto.DataType
_WHOLE = {6: "<i", 7: "<q"}  # INT32 and INT64, as struct names them
_MOST_BYTES = 1024  # of a divisor that is looked at

# Numbers of the fields that are looked at.
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR = 1, 3, 5
_TENSOR_TYPE, _TENSOR_RAW, _TENSOR_ELSEWHERE = 2, 9, (5, 7, 13, 14)
_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_ELEMENT = 2, 1, 1


class Divisions:
    """What is known of the tensors of one graph, in the order of its nodes.

    A field that stands twice, which protobuf would merge, tells nothing.
    """

    def __init__(self, outer: Divisions | None = None, computed: Callable[[], Collection[str]] = tuple) -> None:
        """Begin with what is known of the graph around this one.

        Args:
            outer: that graph.
            computed: names of inputs and of what nodes compute: no constants, whatever initializer has the name too.
        """
        self._outer = outer
        self._floating: set[str] = set()
        self._positive: set[str] = set()
        self._find_computed, self._computed = computed, frozenset[str]()
        # Within this graph, its own names are not those of the other.
        self._own: set[str] = set(computed()) if outer else set()

    def input(self, name: str, info: Sequence[Field]) -> None:
        """An input of the graph, by the fields of its ValueInfoProto."""
        kind = _only(_inside(_only(info, _VALUE_TYPE)), _TYPE_TENSOR)
        if _only(_inside(kind), _TENSOR_ELEMENT) in _FLOATS:
            self._floating.add(name)

    def constant(self, name: str, tensor: Sequence[Field]) -> None:
        """An initializer, or the value of a Constant, by the fields of its TensorProto."""
        kind = _only(tensor, _TENSOR_TYPE)
        self._floating.discard(name)
        self._positive.discard(name)
        self._own.add(name)
        if kind in _FLOATS:
            self._floating.add(name)
        elif kind in _WHOLE and _is_positive(tensor, _WHOLE[kind]):
            self._positive.add(name)

    def node(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Sequence[memoryview]
    ) -> bool:
        """A node of a standard operator; whether it is none that divides what may be whole numbers."""
        floats = operator in FLOATING
        if operator in OF_ALL:
            floats = any(map(self._is_floating, inputs))
        elif operator in OF_FIRST:
            floats = bool(inputs) and self._is_floating(inputs[0])
        elif operator == "Where":
            floats = any(map(self._is_floating, inputs[1:]))
        elif operator == "Cast":
            floats = _target(attributes) in _FLOATS
        elif operator == "Constant":
            self.constant(outputs[0], _inside(_value(attributes)))
        if floats:
            # Of the others only Split has more than one that is of this type, and TopK's second are places.
            self._floating.update(outputs if operator == "Split" else outputs[:1])
        return operator != "Div" or floats or self._is_positive_constant(inputs)

    def _is_positive_constant(self, inputs: Sequence[str]) -> bool:
        return len(inputs) == 2 and self._is_positive(inputs[1]) and inputs[1] not in self._all_computed()

    def _is_floating(self, name: str) -> bool:
        # Asked for, not copied: a graph may hold as many others as it has tensors.
        return name in self._floating or (
            self._outer is not None and name not in self._own and self._outer._is_floating(name)
        )

    def _is_positive(self, name: str) -> bool:
        return name in self._positive or (
            self._outer is not None and name not in self._own and self._outer._is_positive(name)
        )

    def _all_computed(self) -> Collection[str]:
        """Found once, and only if there is such a division: it takes another walk."""
        self._computed = self._computed or frozenset(self._find_computed())
        return self._computed


def _is_positive(tensor: Sequence[Field], form: str) -> bool:
    raw, size = _only(tensor, _TENSOR_RAW), struct.calcsize(form)
    if not isinstance(raw, memoryview) or len(raw) > _MOST_BYTES or len(raw) % size:
        return False
    if any(number in _TENSOR_ELSEWHERE for number, _ in tensor):
        return False
    return all(value > 0 for (value,) in struct.iter_unpack(form, raw))


def _target(attributes: Sequence[memoryview]) -> object:
    """What a Cast makes."""
    found = [fields for fields in map(fields_of, attributes) if text_of(fields, _ATTRIBUTE_NAME) == "to"]
    return _only(found[0], _ATTRIBUTE_INT) if len(found) == 1 else None


def _value(attributes: Sequence[memoryview]) -> int | memoryview | None:
    """The tensor of a Constant."""
    fields = fields_of(attributes[0]) if len(attributes) == 1 else []
    return _only(fields, _ATTRIBUTE_TENSOR) if text_of(fields, _ATTRIBUTE_NAME) == "value" else None


def _only(fields: Sequence[Field], number: int) -> int | memoryview | None:
    values = [value for found, value in fields if found == number]
    return values[0] if len(values) == 1 else None


def _inside(value: int | memoryview | None) -> list[Field]:
    return [] if value is None else fields_of(message(value))
