"""What samrt makes of each kind of pixels: one table, from which the one in docs/images.md is generated too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from samrt.errors import InputError
from samrt.images.metadata import bare_png
from samrt.images.orientation import Box
from samrt.images.picture import Picture

_COLOURS, _LEVELS, _WIDE, _UNIT, _REFUSED = "colours", "levels", "wide", "unit", "refused"
_RANGE = (
    "Scaled to 8 bits from the smallest range of 8, 10, 12, 14 or 16 bits that holds its largest value, since the file "
    "does not say how many are used"
)


@dataclass(frozen=True)
class Kind:
    """One kind of pixels.

    Attributes:
        pixels: what they are.
        result: what becomes of them, in R, G and B of 0..255.
        read: how: Pillow's "colours"; the "levels" of grey of more than 8 bits; "wide" colours, 16 bits per channel, of
            which Pillow keeps 8; "unit", floats in 0..1; or "refused".
        via: modes that Pillow has to convert to before RGB.
    """

    pixels: str
    result: str
    read: str = _COLOURS
    via: tuple[str, ...] = ()


# By `Picture.kind`.
KINDS = {
    "1": Kind("black and white", "0 and 255"),
    "L": Kind("grey, 1 to 8 bits", "the grey in all three channels, 0..255"),
    "LA": Kind("grey, 8 bits, with alpha", "as `L`; alpha is ignored: what is under it is seen"),
    "La": Kind("grey, 8 bits, multiplied by alpha", "divided by alpha, then as `LA`", via=("LA",)),
    "P": Kind("palette", "the palette's colours; transparency is ignored"),
    "PA": Kind("palette with alpha", "the palette's colours; alpha is ignored", via=("RGBA",)),
    "RGB": Kind("colour, 8 bits", "as it is"),
    "RGBA": Kind("colour, 8 bits, with alpha", "alpha is ignored: the colours under it are seen"),
    "RGBX": Kind("colour, 8 bits, with padding", "the padding is dropped"),
    "RGBa": Kind("colour, 8 bits, multiplied by alpha", "divided by alpha, then as `RGBA`", via=("RGBA",)),
    "CMYK": Kind("print colours, 8 bits", "(255 - C) (255 - K) / 255 and so on; inverted ones of Adobe's are read so"),
    "YCbCr": Kind("luma and chroma, 8 bits", "converted as in JPEG"),
    "HSV": Kind("hue, saturation, value, 8 bits", "converted"),
    "LAB": Kind("CIE LAB, 8 bits", "converted to sRGB by LittleCMS, which Pillow's wheels have"),
    "I;16": Kind("grey, 9 to 16 bits", f"{_RANGE}. In all three channels", _LEVELS),
    "I;16L": Kind("grey, 16 bits", "as `I;16`", _LEVELS),
    "I;16B": Kind("grey, 16 bits", "as `I;16`", _LEVELS),
    "I;16N": Kind("grey, 16 bits", "as `I;16`", _LEVELS),
    "I": Kind("grey, whole numbers of 32 bits", "as `I;16` if all are in 0..65535, else refused", _LEVELS),
    "F": Kind("grey, floating", "0..1 becomes 0..255; other values are refused", _UNIT),
    "RGB;16": Kind("colour, 16 bits", f"{_RANGE}. Read by OpenCV, since Pillow keeps the high 8 bits", _WIDE),
    "RGBA;16": Kind("colour, 16 bits, with alpha", "as `RGB;16`; alpha is ignored", _WIDE),
    "LA;16": Kind("grey, 16 bits, with alpha", "as `RGB;16`; alpha is ignored", _WIDE),
    "RGBX;16": Kind("colour, 16 bits, with padding", "refused", _REFUSED),
    "RGBa;16": Kind("colour, 16 bits, multiplied by alpha", "refused", _REFUSED),
    "CMYK;16": Kind("print colours, 16 bits", "refused", _REFUSED),
}

_BITS = (8, 10, 12, 14, 16)
# Pixels that are converted at once, so that no second copy of a large picture is made.
_AT_ONCE = 2**22
# Rounding errors of floats are smaller than half a step of 8 bits, so that what is off by less is no other range.
UNIT_LOW, UNIT_HIGH = -0.5 / 255, 255.5 / 255


def rgb_into(target: NDArray[np.uint8], picture: Picture, box: Box) -> None:
    """Write the pixels of a box x0, y0, x1, y1 of a picture, as stored, to uint8 [h, w, 3].

    The range of more than 8 bits is that of the whole picture.

    Raises:
        InputError: they are of a kind that is refused, or out of the range.
    """
    kind = KINDS.get(picture.kind)
    if kind is None or kind.read == _REFUSED:
        raise InputError(
            f"{picture.name} has pixels of the kind {picture.kind} ({kind.pixels if kind else 'unknown'}), which samrt "
            "does not convert; save it with 8 bits per channel in RGB, or pass a uint8 array"
        )
    if kind.read == _COLOURS:
        for top, strip in strips(picture.load(), box):
            for mode in kind.via:
                strip = strip.convert(mode)  # noqa: PLW2901
            target[top : top + strip.height] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
        return
    if kind.read == _WIDE:
        x0, y0, x1, y1 = box
        levels = _wide_levels(picture)
        table = _scaling(picture, 0, int(levels.max()))
        for top in range(0, y1 - y0, rows := _rows(x1 - x0)):
            target[top : top + rows] = table[levels[y0 + top : min(y0 + top + rows, y1), x0:x1]]
        return
    image = picture.load()
    lows, highs = zip(*((part.min(), part.max()) for _, part in _arrays(image, (0, 0, *image.size))), strict=True)
    if kind.read == _UNIT:
        check_unit(picture.name, float(min(lows)), float(max(highs)))
        inverted = _white_is_zero(image)
        for top, values in _arrays(image, box):
            target[top : top + len(values)] = unit_to_uint8(1 - values if inverted else values)[:, :, None]
        return
    table = _scaling(picture, int(min(lows)), int(max(highs)))
    for top, values in _arrays(image, box):
        target[top : top + len(values)] = table[values][:, :, None]


def strips(image: PIL.Image.Image, box: Box) -> Iterator[tuple[int, PIL.Image.Image]]:
    """A box of an image in parts: the row within the box at which each begins, and the part."""
    x0, y0, x1, y1 = box
    rows = _rows(x1 - x0)
    for top in range(y0, y1, rows):
        strip = image.crop((x0, top, x1, min(top + rows, y1)))
        strip.info = {}  # Pillow converts what it says of transparency too, with warnings
        yield top - y0, strip


def check_unit(name: str, low: float, high: float) -> None:
    """Raises InputError where floats are no image in 0..1."""
    if not np.isfinite(low + high):
        raise InputError(f"{name} contains NaN or infinity; replace those pixels, e.g. with numpy.nan_to_num")
    if low < UNIT_LOW or high > UNIT_HIGH:
        raise InputError(
            f"a floating image must lie in 0..1, {name} lies in {low:g}..{high:g}; divide by its range, or convert "
            "with .astype(numpy.uint8) if it is in 0..255"
        )


def unit_to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """0..1 to 0..255, rounded; what is outside is clipped."""
    scaled: NDArray[np.uint8] = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return scaled


def _rows(width: int) -> int:
    # Pillow applies its limit to what is cut out of a picture too.
    return max(1, min(_AT_ONCE, PIL.Image.MAX_IMAGE_PIXELS or _AT_ONCE) // width)


def _arrays(image: PIL.Image.Image, box: Box) -> Iterator[tuple[int, NDArray[Any]]]:
    return ((top, np.asarray(strip)) for top, strip in strips(image, box))


def _scaling(picture: Picture, low: int, high: int) -> NDArray[np.uint8]:
    """uint8 by level, for levels from `low` to `high`."""
    if low < 0 or high > 65535:
        raise InputError(
            f"{picture.name} has values from {low} to {high}, whose range is unknown; scale them to 0..255 and save "
            "them with 8 bits, or pass a uint8 array"
        )
    top = 2 ** next(bits for bits in _BITS if high < 2**bits) - 1
    table: NDArray[np.uint8] = np.rint(np.arange(top + 1) * (255 / top)).astype(np.uint8)
    return table[::-1].copy() if _white_is_zero(picture.image) else table


def _white_is_zero(image: PIL.Image.Image) -> bool:
    """Of a TIFF whose PhotometricInterpretation is 0; Pillow inverts those of 8 bits only."""
    tags = getattr(image, "tag_v2", {})
    return bool(tags) and tags.get(262) == 0


def _wide_levels(picture: Picture) -> Any:
    """uint16 [H, W, 3] of a file with 16 bits per channel."""
    name = picture.name
    if picture.file is None:
        raise InputError(
            f"{name} has 16 bits per channel, of which Pillow keeps the high 8; pass the file's path, its bytes, or an "
            "array of 8 bits"
        )
    high_bytes = picture.load()  # reports what is damaged or cut off, which OpenCV does not
    picture.file.seek(0)
    data = picture.file.read()
    if high_bytes.format == "PNG":
        data, _ = bare_png(data)  # OpenCV's libpng writes to stderr what it thinks of the rest
    levels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is not None and levels.dtype == np.uint16:
        levels = levels[:, :, 2::-1] if levels.ndim == 3 else np.broadcast_to(levels[:, :, None], (*levels.shape, 3))
        off = int(high_bytes.format == "JPEG2000")  # whose levels Pillow rounds, and whose losses have rounding errors
        if levels.shape[:2] == (high_bytes.height, high_bytes.width) and all(
            np.abs((levels[top : top + strip.height] >> 8) - np.asarray(strip.convert("RGB"), np.int16)).max() <= off
            for top, strip in strips(high_bytes, (0, 0, *high_bytes.size))
        ):
            return levels
    raise InputError(
        f"{name} has 16 bits per channel in a form that OpenCV does not read as Pillow does; save it with 8 bits per "
        "channel, or as a 16-bit PNG"
    )
