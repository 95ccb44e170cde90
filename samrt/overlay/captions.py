"""Captions: short texts on plates, each at its mask, where it hides no other and no point."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from samrt.overlay.colours import DARK, WHITE, Colour, lighter
from samrt.overlay.shapes import Rectangle, scale_of
from samrt.rle import bounding_box

Anchor = tuple[int, int, int, int, int]


def anchor_of(mask: npt.NDArray[np.bool_]) -> Anchor:
    """What of a mask places its caption: its box, x, y, width, height, and the middle of its highest row."""
    x, y, width, height = bounding_box(mask)
    top = x + int(np.median(np.flatnonzero(mask[y, x : x + width]))) if width else 0
    return x, y, width, height, top


def draw_caption(
    canvas: npt.NDArray[np.float32], caption: str, anchor: Anchor, colour: Colour, taken: list[Rectangle]
) -> None:
    """Draw a caption at its mask where it hides no other and no point, and add its place to `taken`."""
    height, width, _ = canvas.shape
    scale = scale_of(canvas)
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
        rectangles.append(Rectangle(cx, cy, cx + chip_width, cy + chip_height))
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
        fill=(*DARK, 235),
        outline=(*lighter(colour), 255),
        width=round(0.1 * size * oversampling),
    )
    draw.text((pad_x - left, pad_y - top), text, font=font, fill=(*WHITE, 255))
    small = plate.resize((max(1, width // oversampling), max(1, height // oversampling)), Image.Resampling.BOX)
    return np.asarray(small, np.float32)
