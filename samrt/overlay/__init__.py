"""Pictures of masks over their image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samrt.errors import InputError
from samrt.overlay.captions import anchor_of, draw_caption
from samrt.overlay.colours import PALETTE, WHITE, colour_of
from samrt.overlay.shapes import (
    Picture,
    Rectangle,
    dim_outside,
    draw_box,
    draw_mask,
    draw_painted,
    draw_point,
    scale_of,
    strips,
)

__all__ = ["PALETTE", "Marks", "Picture", "draw_overlay", "join_panels"]


@dataclass(frozen=True)
class Marks:
    """One prompt as it is drawn. Coordinates are (x, y) in pixels of the original image.

    Attributes:
        points: float [N, 2].
        labels: int [N], 1 foreground and 0 background.
        box: float [4], x0, y0, x1, y1.
        painted: bool [H, W], a painted mask.
    """

    points: npt.NDArray[np.float64] | None = None
    labels: npt.NDArray[np.int32] | None = None
    box: npt.NDArray[np.float64] | None = None
    painted: npt.NDArray[np.bool_] | None = None


def draw_overlay(
    image: Picture,
    masks: npt.NDArray[np.bool_] | Sequence[npt.NDArray[np.bool_]],
    captions: Sequence[str] = (),
    prompts: Sequence[Marks] = (),
    region: tuple[int, int, int, int] | None = None,
) -> Picture:
    """Draw masks, their captions and the prompts they came from over an image.

    Args:
        image: uint8 [H, W, 3] RGB.
        masks: bool [M, H, W], or a sequence of bool [H, W] whose items are asked for one at a time, twice each. Mask i
            has the colour `PALETTE[i % len(PALETTE)]`; larger masks are drawn below smaller.
        captions: one short text per mask, or none. Left out where the image is too small to hold it.
        prompts: drawn on top. Prompt i has the colour of mask i.
        region: x0, y0, x1, y1, the part of the image that was seen; it is framed in white.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        InputError: the shapes or dtypes do not fit.
    """
    _check(image, captions, len(masks))
    scale = scale_of(image)
    lit, areas = np.zeros(image.shape[:2], np.bool_), []
    for mask in masks:
        lit |= _checked(mask, image)
        areas.append(-np.count_nonzero(mask))
    canvas = image.astype(np.float32)
    dim_outside(canvas, lit)
    anchors = [(0, 0, 0, 0, 0)] * len(masks)
    for index in map(int, np.argsort(areas, kind="stable")):
        anchors[index] = anchor_of(mask := masks[index])
        draw_mask(canvas, mask, colour_of(index), scale)
    if region is not None:
        draw_box(canvas, np.array(region, np.float64), WHITE, scale)
    for index, prompt in enumerate(prompts):
        if prompt.painted is not None:
            draw_painted(canvas, prompt.painted, scale)
        if prompt.box is not None:
            draw_box(canvas, prompt.box, colour_of(index), scale)
    taken: list[Rectangle] = []
    for prompt in prompts:
        if prompt.points is not None and prompt.labels is not None:
            for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
                taken.append(draw_point(canvas, float(x), float(y), bool(label == 1), scale))
    for index, caption in enumerate(captions):
        draw_caption(canvas, caption, anchors[index], colour_of(index), taken)
    picture = np.empty_like(image)
    for strip in strips(canvas):
        picture[strip] = np.rint(canvas[strip])
    return picture


def join_panels(pictures: Sequence[Picture]) -> Picture:
    """Pictures of one size side by side with white gutters; panoramas (over twice as wide as high) one below the other.

    Args:
        pictures: uint8 [H, W, 3] RGB each.
    """
    height, width, _ = pictures[0].shape
    axis = 0 if width > 2 * height else 1
    gutter_shape = list(pictures[0].shape)
    gutter_shape[axis] = max(1, round(6 * scale_of(pictures[0])))
    gutter = np.full(gutter_shape, 255, np.uint8)
    parts: list[Picture] = [pictures[0]]
    for picture in pictures[1:]:
        parts += [gutter, picture]
    return np.concatenate(parts, axis=axis)


def _check(image: Picture, captions: Sequence[str], masks: int) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise InputError(f"the image must be uint8 [H, W, 3] RGB, got {image.dtype} {list(image.shape)}")
    if captions and len(captions) != masks:
        raise InputError(f"{len(captions)} captions for {masks} masks; give one per mask or none")


def _checked(mask: npt.NDArray[np.bool_], image: Picture) -> npt.NDArray[np.bool_]:
    if mask.dtype != np.bool_ or mask.shape != image.shape[:2]:
        height, width, _ = image.shape
        raise InputError(f"the masks must be bool [M, {height}, {width}], one is {mask.dtype} {list(mask.shape)}")
    return mask
