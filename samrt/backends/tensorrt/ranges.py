"""What shapes an engine takes, and telling callers what to do about those that it does not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from samrt.bundle.contract import Graph, Tensor
from samrt.errors import InputError, Remedy

Shape = tuple[int, ...]


@dataclass(frozen=True)
class InputRange:
    """One input of an engine, with the smallest and the largest shape that it was built for."""

    tensor: Tensor
    minimum: Shape
    maximum: Shape


def named_axes(graph: Graph, name: str, shape: Shape) -> tuple[int | str, ...]:
    """`shape` as an engine reports it, with the name that `graph` gives an axis instead of its length.

    Also where the engine reports a length: TensorRT may fix an axis that was built for one length only.
    """
    declared = {tensor.name: tensor.shape for tensor in (*graph.inputs, *graph.outputs)}.get(name, ())
    axes = declared if len(declared) == len(shape) else (-1,) * len(shape)
    return tuple(n if n >= 0 and not isinstance(axis, str) else str(axis) for n, axis in zip(shape, axes, strict=True))


def max_lengths(ranges: Collection[InputRange]) -> dict[str, int]:
    """The largest length of each named axis that all inputs take."""
    longest: dict[str, int] = {}
    for each in ranges:
        for axis, n in zip(each.tensor.shape, each.maximum, strict=True):
            if isinstance(axis, str):
                longest[axis] = min(n, longest.get(axis, n))
    return longest


def check_names(given: Collection[str], ranges: Collection[InputRange]) -> None:
    """Raises InputError unless exactly the engine's inputs are given."""
    wanted = [each.tensor.name for each in ranges]
    if set(given) != set(wanted):
        raise InputError(f"the engine takes the inputs {', '.join(wanted)}, not {', '.join(given) or 'none'}")


def check_shapes(shapes: Mapping[str, Shape], ranges: Collection[InputRange]) -> None:
    """Raises InputError where a shape is outside its range, or one axis has two lengths."""
    lengths: dict[str, tuple[int, str]] = {}
    for each in ranges:
        name, shape = each.tensor.name, shapes[each.tensor.name]
        if len(shape) != len(each.maximum):
            raise InputError(f"{name} must have the shape {_written(each.tensor.shape)}, not {_written(shape)}")
        for axis, n, low, high in zip(each.tensor.shape, shape, each.minimum, each.maximum, strict=True):
            if not low <= n <= high:
                raise _out_of_range(each, shape, axis, n, (low, high))
            if isinstance(axis, str) and lengths.setdefault(axis, (n, name))[0] != n:
                other_n, other = lengths[axis]
                raise InputError(f"{name} has {n} {axis}, {other} has {other_n}; give both as many")


def _out_of_range(each: InputRange, shape: Shape, axis: int | str, n: int, bounds: tuple[int, int]) -> InputError:
    low, high = bounds
    name = each.tensor.name
    if not isinstance(axis, str):
        return InputError(f"{name} must have the shape {_written(each.tensor.shape)}, not {_written(shape)}")
    if n < low:
        return InputError(f"{name} has {n} {axis}, the engine takes at least {low}")
    limit = f"max_{axis}"
    return InputError(
        f"{name} has {n} {axis}, this engine takes at most {high}",
        Remedy(f"give fewer at a time, or build the engines again with {{{limit}}}", {limit: n}),
    )


def _written(shape: tuple[Any, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
