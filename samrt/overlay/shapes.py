"""What is drawn over an image: masks, painted masks, boxes and points.

Everything is drawn from signed distances in pixels (positive inside), which gives smooth edges at any width without a
drawing library's rounding: the opacity of an edge at distance d is `clip(d + 0.5, 0, 1)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from samrt.overlay.colours import DARK, WHITE, Colour, lighter
from samrt.rle import bounding_box

Picture = npt.NDArray[np.uint8]

_FOREGROUND: Colour = (0, 168, 84)
_BACKGROUND: Colour = (222, 45, 38)
# Rows that are drawn at once, and how far the blur of what is not lit reaches.
_STRIP, _BLUR_REACH = 256, 8


@dataclass(frozen=True)
class Rectangle:
    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Rectangle) -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


def strips(picture: npt.NDArray[Any]) -> Iterator[slice]:
    """Some rows at a time, because large photographs would need several more copies of themselves."""
    for top in range(0, len(picture), _STRIP):
        yield slice(top, top + _STRIP)


def scale_of(image: npt.NDArray[np.float32] | Picture) -> float:
    """Factor for widths and text: 1 for a picture of 640 x 480."""
    return float(np.clip(np.sqrt(image.shape[0] * image.shape[1]) / 554, 0.4, 12))


def dim_outside(canvas: npt.NDArray[np.float32], lit: npt.NDArray[np.bool_]) -> None:
    """Take light and colour from what is outside `lit`, in place."""
    luminance = np.array([0.299, 0.587, 0.114], np.float32)
    for strip in strips(canvas):
        part = canvas[strip]
        # With the rows above and below that the blur reaches for.
        first = max(0, strip.start - _BLUR_REACH)
        dim = (~lit[first : strip.stop + _BLUR_REACH]).astype(np.float32)
        dim = np.asarray(cv2.GaussianBlur(dim, (0, 0), 0.8, borderType=cv2.BORDER_REPLICATE), np.float32)
        amount = dim[strip.start - first :][: len(part), :, None]
        outside = 0.7 * (0.45 * part + 0.55 * (part @ luminance)[..., None])
        part += amount * (outside - part)


def _blend(region: npt.NDArray[np.float32], colour: Colour, opacity: npt.NDArray[np.float32]) -> None:
    region += opacity[..., None] * (np.asarray(colour, np.float32) - region)


def _edge(distance: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    opacity: npt.NDArray[np.float32] = np.clip(distance + np.float32(0.5), 0, 1)
    return opacity


def _signed_distance(
    mask: npt.NDArray[np.bool_], reach: int
) -> tuple[tuple[slice, slice], npt.NDArray[np.float32]] | None:
    """The mask's box, grown by `reach`, and the signed distance in it, cut off at `reach`; None for an empty mask."""
    x, y, width, height = bounding_box(mask)
    if width == 0:
        return None
    region = (slice(max(0, y - reach), y + height + reach), slice(max(0, x - reach), x + width + reach))
    cut = mask[region].astype(np.uint8)
    distance = np.asarray(cv2.distanceTransform(cut, cv2.DIST_L2, cv2.DIST_MASK_5), np.float32)
    outside = cv2.distanceTransform(1 - cut, cv2.DIST_L2, cv2.DIST_MASK_5)
    # The edge runs half-way between the centres of an inner and an outer pixel. In place: both are large.
    distance -= np.float32(0.5)
    np.subtract(np.float32(0.5), outside, out=distance, where=cut == 0)
    return region, distance.clip(-reach, reach, out=distance)


def draw_mask(canvas: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], colour: Colour, scale: float) -> None:
    line, rim = max(1.0, 1.6 * scale), max(0.6, 0.7 * scale)
    found = _signed_distance(mask, reach=int(np.ceil(line + rim + 2 + 2 * scale)))
    if found is None:
        return
    region, smooth = found
    # Smoothing the distance rounds off the pixel steps of the mask's edge.
    cv2.GaussianBlur(smooth, (0, 0), 0.6 + 0.3 * scale, dst=smooth, borderType=cv2.BORDER_REPLICATE)
    for strip in strips(smooth):
        cut, distance = canvas[region][strip], smooth[strip]
        _blend(cut, colour, np.float32(0.36) * _edge(distance))
        _blend(cut, DARK, np.float32(0.75) * _ring(distance, line / 2 + rim))
        _blend(cut, lighter(colour), _ring(distance, line / 2))


def _ring(distance: npt.NDArray[np.float32], half_width: float) -> npt.NDArray[np.float32]:
    return _edge(np.float32(half_width) - np.abs(distance))


def draw_painted(canvas: npt.NDArray[np.float32], painted: npt.NDArray[np.bool_], scale: float) -> None:
    found = _signed_distance(painted, reach=int(np.ceil(3 + 2 * scale)))
    if found is None:
        return
    region, distance = found
    for strip in strips(distance):
        cut = canvas[region][strip]
        _blend(cut, _FOREGROUND, np.float32(0.6) * _edge(distance[strip]))
        _blend(cut, WHITE, _ring(distance[strip], max(0.5, 0.5 * scale)))


def draw_box(canvas: npt.NDArray[np.float32], box: npt.NDArray[np.float64], colour: Colour, scale: float) -> None:
    line = max(1, round(1.2 * scale))
    rim = max(1, round(0.5 * scale))
    height, width, _ = canvas.shape
    # Clipped, so that the frame of a box that fills the image can still be seen.
    left, top = max(line, round(float(box[0]))), max(line, round(float(box[1])))
    right, bottom = min(width - line, round(float(box[2]))), min(height - line, round(float(box[3])))
    for inner, outer, paint, opacity in ((rim, line + rim, DARK, 0.55), (0, line, colour, 1.0)):
        for rows, columns in (
            (slice(top - outer, top + inner), slice(left - outer, right + outer)),
            (slice(bottom - inner, bottom + outer), slice(left - outer, right + outer)),
            (slice(top + inner, bottom - inner), slice(left - outer, left + inner)),
            (slice(top + inner, bottom - inner), slice(right - inner, right + outer)),
        ):
            strip = canvas[tuple(slice(max(0, part.start), max(0, part.stop)) for part in (rows, columns))]
            strip += np.float32(opacity) * (np.asarray(paint, np.float32) - strip)


def draw_point(canvas: npt.NDArray[np.float32], x: float, y: float, foreground: bool, scale: float) -> Rectangle:
    radius = max(1.5, 6 * scale)
    rim = max(0.8, 1.6 * scale)
    reach = radius + rim + max(0.5, scale)
    x0, y0 = max(0, int(x - reach)), max(0, int(y - reach))
    cut = canvas[y0 : max(0, int(y + reach) + 2), x0 : max(0, int(x + reach) + 2)]
    rows, columns = np.ogrid[y0 : y0 + cut.shape[0], x0 : x0 + cut.shape[1]]
    # A point names a pixel and means its centre, as in the model.
    across = np.abs(columns - x).astype(np.float32)
    down = np.abs(rows - y).astype(np.float32)
    distance = np.hypot(across, down)
    _blend(cut, DARK, np.float32(0.6) * _edge(np.float32(reach) - distance))
    _blend(cut, WHITE, _edge(np.float32(radius + rim) - distance))
    _blend(cut, _FOREGROUND if foreground else _BACKGROUND, _edge(np.float32(radius) - distance))
    if radius >= 3:
        # A plus or a minus, so that the two can be told apart without their colours.
        length, thickness = np.float32(0.6 * radius), np.float32(0.15 * radius)
        sign = _edge(np.minimum(length - across, thickness - down))
        if foreground:
            sign = np.maximum(sign, _edge(np.minimum(length - down, thickness - across)))
        _blend(cut, WHITE, sign)
    return Rectangle(x - reach, y - reach, x + reach, y + reach)
