"""What a bundle's graphs obey: the frames of images and prompts, the encoder's features, the decoder's masks.

A family describes itself with a `Contract`; graphs, runtime and comparison follow from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

Size = tuple[int, int]  # (height, width)

IMAGE_ENCODER, MASK_DECODER = "image_encoder", "mask_decoder"
# The graphs that every family has. A form may have graphs of other roles, which this version does not run.
ROLES = (IMAGE_ENCODER, MASK_DECODER)
# What the mask decoder takes beside the features.
PROMPT_INPUTS = ("point_coords", "point_labels", "mask_input", "has_mask_input")

MASK_OUTPUTS = ("low_res_masks", "iou_predictions")
# No graph need bear out the prompts' side, and masks pass through a square of it: 256 MB each at this side.
LARGEST_SIDE = 8192
# What the features of an image, or the masks of a prompt, may hold together: 1 GiB of float32, sixteen times what
# SAM's own decoder returns at the largest side.
LARGEST_ARRAY = 2**28
# TensorRT takes eight, and the batch is one of them.
MOST_AXES = 7
# Pixels lie in 0..255. What is farther from that leaves no digit of them in float32, or no number at all.
FARTHEST = 1e6

RESIZES = ("longest_side", "square")
INTERPOLATIONS = ("bilinear_antialiased",)
NORMALIZATIONS = ("mean_std", "min_max")
CHOICES = ("token", "predicted_iou", "stability", "hq")


@dataclass(frozen=True)
class Tensor:
    """One input or output of a graph; a string in `shape` names a dynamic axis. `dtype` is numpy's name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Graph:
    """One ONNX file of the bundle and its named inputs and outputs."""

    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Feature:
    """One output of the image encoder, which the mask decoder takes: float32, `shape` is that of one image."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Normalization:
    """How RGB pixels in 0..255 become model input.

    `mean_std`: (x - mean) / std per channel. `min_max`: per image to 0..1, without mean and std.
    """

    kind: str
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Geometry:
    """The square frames of a model, and how an image gets into them.

    Attributes:
        encoder_side: side of the image encoder's input in pixels.
        prompt_side: side in pixels of the frame in which the decoder takes points and boxes. It shows the same square
            as the encoder's input.
        low_res_side: side L of mask logits and mask prompts, over the same square.
        resize: "longest_side" keeps the aspect ratio and pads right and below, as SAM does; "square" stretches the
            image to the whole square, as SAM 2 does.
        interpolation: the filter of the resizing.
        normalization: what follows it.
    """

    encoder_side: int
    prompt_side: int
    low_res_side: int
    normalization: Normalization
    resize: str = "longest_side"
    interpolation: str = "bilinear_antialiased"

    def encoder_size(self, height: int, width: int) -> Size:
        """Height and width of an image of this size as resized for the encoder, without padding."""
        return self._within(self.encoder_side, height, width)

    def input_size(self, height: int, width: int) -> Size:
        """Height and width, in the prompts' frame, of an image of this size."""
        return self._within(self.prompt_side, height, width)

    def fills(self, size: Size, side: int) -> bool:
        """Whether an image of this size in a frame of this side is one that `resize` gives."""
        return max(size) == side and min(size) >= 1 and (self.resize == "longest_side" or min(size) == side)

    def _within(self, side: int, height: int, width: int) -> Size:
        return (side, side) if self.resize == "square" else resize_shape(height, width, side)


@dataclass(frozen=True)
class MaskOutputs:
    """The masks of the decoder, by index, and which of them answer a prompt.

    Attributes:
        count: how many come out.
        single: the mask of a prompt that is not ambiguous.
        ambiguous: the masks of an ambiguous prompt, part to whole.
        choice: how the answer is chosen where one mask is wanted (`samrt.masks`). "token": it is `single`.
            "predicted_iou": the one of `ambiguous` with the highest predicted IoU. "stability": `single` where that is
            stable, else as "predicted_iou". "hq": as "token", with the logits of the last mask added.
        threshold: logits above it are mask.
    """

    count: int = 4
    single: int = 0
    ambiguous: tuple[int, ...] = (1, 2, 3)
    choice: str = "token"
    threshold: float = 0.0


@dataclass(frozen=True)
class Contract:
    """All that the graphs of a model must agree on, whatever their precision and lowering."""

    geometry: Geometry
    features: tuple[Feature, ...]
    masks: MaskOutputs

    def graph(self, role: str, file: str) -> Graph:
        """The graph of one of `ROLES` as docs/architecture.md fixes it for every family."""
        return {IMAGE_ENCODER: self.image_encoder, MASK_DECODER: self.mask_decoder}[role](file)

    def image_encoder(self, file: str) -> Graph:
        """Images to features."""
        side = self.geometry.encoder_side
        return Graph(
            file,
            inputs=(Tensor("image", "float32", ("batch", 3, side, side)),),
            outputs=self._features("batch"),
        )

    def mask_decoder(self, file: str) -> Graph:
        """Features of one image and any number of prompts to masks."""
        L, masks = self.geometry.low_res_side, self.masks.count
        return Graph(
            file,
            inputs=(
                *self._features(1),
                Tensor("point_coords", "float32", ("prompts", "points", 2)),
                Tensor("point_labels", "int32", ("prompts", "points")),
                Tensor("mask_input", "float32", ("prompts", 1, L, L)),
                Tensor("has_mask_input", "float32", ("prompts",)),
            ),
            outputs=(
                Tensor("low_res_masks", "float32", ("prompts", masks, L, L)),
                Tensor("iou_predictions", "float32", ("prompts", masks)),
            ),
        )

    def problems(self) -> Iterable[str]:
        """What in the contract contradicts itself."""
        names = [feature.name for feature in self.features]
        taken = {"image", *PROMPT_INPUTS, *MASK_OUTPUTS}
        if not names or len(set(names)) != len(names) or taken & set(names):
            yield f"features must be one or several, each of a name of its own, not [{', '.join(names)}]"
        geometry = self.geometry
        sides = geometry.encoder_side, geometry.prompt_side, geometry.low_res_side
        if max(sides) > LARGEST_SIDE:
            yield f"geometry must have sides of at most {LARGEST_SIDE} pixels, not {', '.join(map(str, sides))}"
        masks = self.masks
        indices = (masks.single, *masks.ambiguous)
        if not masks.ambiguous or len(set(masks.ambiguous)) != len(masks.ambiguous) or max(indices) >= masks.count:
            yield f"masks must name outputs below their count of {masks.count}, not {list(indices)}"
        yield from self._too_large()
        yield from self._too_far()

    def _too_large(self) -> Iterable[str]:
        if any(len(feature.shape) > MOST_AXES for feature in self.features):
            yield f"features must have at most {MOST_AXES} axes each"
        elif sum(math.prod(feature.shape) for feature in self.features) > LARGEST_ARRAY:
            shapes = ", ".join(str(list(feature.shape)) for feature in self.features)
            yield f"features must hold at most {LARGEST_ARRAY:,} numbers together, not {shapes}"
        count, side = self.masks.count, self.geometry.low_res_side
        if count * side**2 > LARGEST_ARRAY:
            yield f"masks must hold at most {LARGEST_ARRAY:,} numbers together, not {count} of {side} x {side}"

    def _too_far(self) -> Iterable[str]:
        how, threshold = self.geometry.normalization, self.masks.threshold
        if not all(1 / FARTHEST <= value <= FARTHEST for value in how.std or ()):
            yield f"geometry must have a std from {1 / FARTHEST:g} to {FARTHEST:g}, not {how.std}"
        if not all(abs(value) <= FARTHEST for value in (*(how.mean or ()), threshold)):
            yield f"mean and threshold must be at most {FARTHEST:g} from 0, not {how.mean} and {threshold}"

    def _features(self, batch: int | str) -> tuple[Tensor, ...]:
        return tuple(Tensor(feature.name, "float32", (batch, *feature.shape)) for feature in self.features)


def resize_shape(height: int, width: int, long_side: int) -> Size:
    """Height and width with the longer side `long_side` and the same aspect ratio, rounded as Meta's SAM does.

    Where Meta's `ResizeLongestSide.get_preprocess_shape` returns 0 for the shorter side (an image more than 2
    `long_side` times longer than wide), this returns 1.
    """
    scale = long_side * 1.0 / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
