"""Pictures of masks over their image.

Everything is drawn from signed distances in pixels (positive inside), which gives smooth edges at any width without a
drawing library's rounding: the opacity of an edge at distance d is `clip(d + 0.5, 0, 1)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from samrt.errors import InputError
from samrt.rle import bounding_box

Colour = tuple[int, int, int]
Picture = npt.NDArray[np.uint8]
_Anchor = tuple[int, int, int, int, int]

# Okabe and Ito's palette for all kinds of colour vision (jfly.uni-koeln.de/color), lightened for photographs and
# without its black; neighbours in this order differ most.
PALETTE: tuple[Colour, ...] = (
    (64, 156, 255),
    (255, 159, 28),
    (0, 190, 140),
    (226, 121, 186),
    (250, 230, 70),
    (232, 84, 20),
    (120, 208, 250),
)
_FOREGROUND: Colour = (0, 168, 84)
_BACKGROUND: Colour = (222, 45, 38)
_WHITE: Colour = (255, 255, 255)
_DARK: Colour = (16, 18, 24)
# Rows that are drawn at once, and how far the blur of what is not lit reaches.
_STRIP, _BLUR_REACH = 256, 8


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
    scale = _scale_of(image)
    lit, areas = np.zeros(image.shape[:2], np.bool_), []
    for mask in masks:
        lit |= _checked(mask, image)
        areas.append(-np.count_nonzero(mask))
    canvas = image.astype(np.float32)
    _dim(canvas, lit)
    anchors = [(0, 0, 0, 0, 0)] * len(masks)
    for index in map(int, np.argsort(areas, kind="stable")):
        anchors[index] = _anchor(mask := masks[index])
        _draw_mask(canvas, mask, _colour(index), scale)
    if region is not None:
        _draw_box(canvas, np.array(region, np.float64), _WHITE, scale)
    for index, prompt in enumerate(prompts):
        if prompt.painted is not None:
            _draw_painted(canvas, prompt.painted, scale)
        if prompt.box is not None:
            _draw_box(canvas, prompt.box, _colour(index), scale)
    taken: list[_Rectangle] = []
    for prompt in prompts:
        if prompt.points is not None and prompt.labels is not None:
            for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
                taken.append(_draw_point(canvas, float(x), float(y), bool(label == 1), scale))
    for index, caption in enumerate(captions):
        _draw_caption(canvas, caption, anchors[index], _colour(index), taken)
    picture = np.empty_like(image)
    for strip in _strips(canvas):
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
    gutter_shape[axis] = max(1, round(6 * _scale_of(pictures[0])))
    gutter = np.full(gutter_shape, 255, np.uint8)
    parts: list[Picture] = [pictures[0]]
    for picture in pictures[1:]:
        parts += [gutter, picture]
    return np.concatenate(parts, axis=axis)


@dataclass(frozen=True)
class _Rectangle:
    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: _Rectangle) -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


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


def _strips(picture: npt.NDArray[Any]) -> Iterator[slice]:
    """Some rows at a time, because large photographs would need several more copies of themselves."""
    for top in range(0, len(picture), _STRIP):
        yield slice(top, top + _STRIP)


def _colour(index: int) -> Colour:
    return PALETTE[index % len(PALETTE)]


def _lighter(colour: Colour) -> Colour:
    red, green, blue = (round(0.65 * value + 0.35 * 255) for value in colour)
    return red, green, blue


def _scale_of(image: npt.NDArray[np.float32] | Picture) -> float:
    """Factor for widths and text: 1 for a picture of 640 x 480."""
    return float(np.clip(np.sqrt(image.shape[0] * image.shape[1]) / 554, 0.4, 12))


def _dim(canvas: npt.NDArray[np.float32], lit: npt.NDArray[np.bool_]) -> None:
    """Take light and colour from what is outside `lit`, in place."""
    luminance = np.array([0.299, 0.587, 0.114], np.float32)
    for strip in _strips(canvas):
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


def _draw_mask(canvas: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], colour: Colour, scale: float) -> None:
    line, rim = max(1.0, 1.6 * scale), max(0.6, 0.7 * scale)
    found = _signed_distance(mask, reach=int(np.ceil(line + rim + 2 + 2 * scale)))
    if found is None:
        return
    region, smooth = found
    # Smoothing the distance rounds off the pixel steps of the mask's edge.
    cv2.GaussianBlur(smooth, (0, 0), 0.6 + 0.3 * scale, dst=smooth, borderType=cv2.BORDER_REPLICATE)
    for strip in _strips(smooth):
        cut, distance = canvas[region][strip], smooth[strip]
        _blend(cut, colour, np.float32(0.36) * _edge(distance))
        _blend(cut, _DARK, np.float32(0.75) * _ring(distance, line / 2 + rim))
        _blend(cut, _lighter(colour), _ring(distance, line / 2))


def _ring(distance: npt.NDArray[np.float32], half_width: float) -> npt.NDArray[np.float32]:
    return _edge(np.float32(half_width) - np.abs(distance))


def _draw_painted(canvas: npt.NDArray[np.float32], painted: npt.NDArray[np.bool_], scale: float) -> None:
    found = _signed_distance(painted, reach=int(np.ceil(3 + 2 * scale)))
    if found is None:
        return
    region, distance = found
    for strip in _strips(distance):
        cut = canvas[region][strip]
        _blend(cut, _FOREGROUND, np.float32(0.6) * _edge(distance[strip]))
        _blend(cut, _WHITE, _ring(distance[strip], max(0.5, 0.5 * scale)))


def _draw_box(canvas: npt.NDArray[np.float32], box: npt.NDArray[np.float64], colour: Colour, scale: float) -> None:
    line = max(1, round(1.2 * scale))
    rim = max(1, round(0.5 * scale))
    height, width, _ = canvas.shape
    # Clipped, so that the frame of a box that fills the image can still be seen.
    left, top = max(line, round(float(box[0]))), max(line, round(float(box[1])))
    right, bottom = min(width - line, round(float(box[2]))), min(height - line, round(float(box[3])))
    for inner, outer, paint, opacity in ((rim, line + rim, _DARK, 0.55), (0, line, colour, 1.0)):
        for rows, columns in (
            (slice(top - outer, top + inner), slice(left - outer, right + outer)),
            (slice(bottom - inner, bottom + outer), slice(left - outer, right + outer)),
            (slice(top + inner, bottom - inner), slice(left - outer, left + inner)),
            (slice(top + inner, bottom - inner), slice(right - inner, right + outer)),
        ):
            strip = canvas[tuple(slice(max(0, part.start), max(0, part.stop)) for part in (rows, columns))]
            strip += np.float32(opacity) * (np.asarray(paint, np.float32) - strip)


def _draw_point(canvas: npt.NDArray[np.float32], x: float, y: float, foreground: bool, scale: float) -> _Rectangle:
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
    _blend(cut, _DARK, np.float32(0.6) * _edge(np.float32(reach) - distance))
    _blend(cut, _WHITE, _edge(np.float32(radius + rim) - distance))
    _blend(cut, _FOREGROUND if foreground else _BACKGROUND, _edge(np.float32(radius) - distance))
    if radius >= 3:
        # A plus or a minus, so that the two can be told apart without their colours.
        length, thickness = np.float32(0.6 * radius), np.float32(0.15 * radius)
        sign = _edge(np.minimum(length - across, thickness - down))
        if foreground:
            sign = np.maximum(sign, _edge(np.minimum(length - down, thickness - across)))
        _blend(cut, _WHITE, sign)
    return _Rectangle(x - reach, y - reach, x + reach, y + reach)


def _anchor(mask: npt.NDArray[np.bool_]) -> _Anchor:
    """What of a mask places its caption: its box, x, y, width, height, and the middle of its highest row."""
    x, y, width, height = bounding_box(mask)
    top = x + int(np.median(np.flatnonzero(mask[y, x : x + width]))) if width else 0
    return x, y, width, height, top


def _draw_caption(
    canvas: npt.NDArray[np.float32], caption: str, anchor: _Anchor, colour: Colour, taken: list[_Rectangle]
) -> None:
    """Draw a caption at its mask where it hides no other and no point, and add its place to `taken`."""
    height, width, _ = canvas.shape
    scale = _scale_of(canvas)
    chip = _chip(caption, colour, max(11.0, 14 * scale))
    chip_height, chip_width, _ = chip.shape
    x, y, mask_width, mask_height, top = anchor
    if mask_width == 0 or chip_height > height // 2 or chip_width > width // 2:
        return
    gap = round(5 * scale)
    centre = top - chip_width // 2
    places = [
        (centre, y - chip_height - gap),
        (centre, y + gap),
        (x + gap, y + gap),
        (x + mask_width // 2 - chip_width // 2, y + mask_height + gap),
        (x + mask_width // 2 - chip_width // 2, y + mask_height // 2 - chip_height // 2),
        (x + mask_width + gap, y + mask_height // 2 - chip_height // 2),
    ]
    rectangles = []
    for left, upper in places:
        cx = min(max(left, 0), width - chip_width)
        cy = min(max(upper, 0), height - chip_height)
        rectangles.append(_Rectangle(cx, cy, cx + chip_width, cy + chip_height))
    free = [place for place in rectangles if not any(place.overlaps(other) for other in taken)]
    place = (free or rectangles)[0]
    taken.append(place)
    cut = canvas[int(place.y0) : int(place.y1), int(place.x0) : int(place.x1)]
    cut += chip[..., 3:] / np.float32(255) * (chip[..., :3] - cut)


def _chip(text: str, colour: Colour, size: float) -> npt.NDArray[np.float32]:
    """A text on a rounded plate, float32 [h, w, 4] RGBA 0..255."""
    oversampling = 4
    font = ImageFont.load_default(size * oversampling)
    # The height of a digit, whatever the text, so that all plates are alike.
    _, top, _, bottom = font.getbbox("0")
    left, _, right, _ = font.getbbox(text)
    pad_x, pad_y = 0.42 * size * oversampling, 0.28 * size * oversampling
    width, height = round(right - left + 2 * pad_x), round(bottom - top + 2 * pad_y)
    plate = Image.new("RGBA", (width, height), (*colour, 0))
    draw = ImageDraw.Draw(plate)
    draw.rounded_rectangle(
        (0, 0, width - 1, height - 1),
        radius=0.3 * height,
        fill=(*_DARK, 235),
        outline=(*_lighter(colour), 255),
        width=round(0.1 * size * oversampling),
    )
    draw.text((pad_x - left, pad_y - top), text, font=font, fill=(*_WHITE, 255))
    small = plate.resize((max(1, width // oversampling), max(1, height // oversampling)), Image.Resampling.BOX)
    return np.asarray(small, np.float32)
