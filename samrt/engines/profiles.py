"""Ranges of the dynamic axes that an engine is built for, and the shapes of a graph's inputs that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from samrt.bundle.contract import Graph, Tensor
from samrt.errors import BundleError, InputError

# A point without a box comes with one of padding. Beyond the largest, an engine would not fit on any GPU; whoever asks
# has mixed something up.
_SMALLEST = {"max_batch": 1, "max_prompts": 1, "max_points": 2}
_LARGEST = {"max_batch": 64, "max_prompts": 1024, "max_points": 1024}


@dataclass(frozen=True)
class BuildLimits:
    """The most that an engine takes. Its working memory grows with prompts times points.

    Attributes:
        max_batch: images per call of the encoder.
        max_prompts: prompts per call of the decoder.
        max_points: points per prompt; a box is two of them.

    Raises:
        InputError: one is not a whole number, too small for any prompt, or more than any GPU holds.
    """

    max_batch: int = 1
    max_prompts: int = 4
    max_points: int = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            value, low, high = getattr(self, field.name), _SMALLEST[field.name], _LARGEST[field.name]
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise InputError(f"{field.name} must be a whole number from {low} to {high}, not {value!r}")


@dataclass(frozen=True)
class Range:
    """The smallest and largest shape of one input, and the one that the engine is tuned for."""

    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]


def ranges(graph: Graph, limits: BuildLimits) -> dict[str, Range]:
    """Each input's range, by its name. An axis of fixed length has that length in all three shapes.

    Tuned for one image, and for one prompt of one box or two points.

    Raises:
        BundleError: a dynamic axis has a name other than "batch", "prompts" and "points".
    """
    axes = {
        "batch": (1, 1, limits.max_batch),
        "prompts": (1, 1, limits.max_prompts),
        # A prompt may be a mask alone.
        "points": (0, 2, limits.max_points),
    }
    return {tensor.name: _range(graph.file, tensor, axes) for tensor in graph.inputs}


def _range(file: str, tensor: Tensor, axes: dict[str, tuple[int, int, int]]) -> Range:
    lengths = []
    for axis in tensor.shape:
        if isinstance(axis, str) and axis not in axes:
            raise BundleError(
                f"the input {tensor.name!r} of {file} has a dynamic axis {axis!r}, and no engine can be built without "
                f"knowing its range; known are {', '.join(axes)}: export the checkpoint again"
            )
        lengths.append(axes[axis] if isinstance(axis, str) else (axis, axis, axis))
    minimum, optimum, maximum = zip(*lengths, strict=True)
    return Range(minimum, optimum, maximum)
