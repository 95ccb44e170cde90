"""How a picture is to be turned: EXIF's orientation tag, and nothing else of its EXIF data.

The tag is read by samrt itself. Cameras and editors write EXIF that Pillow cannot read, or reads with warnings, and a
photograph with such EXIF is not damaged.
"""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from typing import Any

import PIL.Image
from numpy.typing import NDArray

_TAG = 0x0112
_AS_IS = 1
_VALUES = range(1, 9)
_MIRRORED_X = (2, 3, 6, 7)
_MIRRORED_Y = (3, 4, 7, 8)
_SIDEWAYS = (5, 6, 7, 8)  # width and height are exchanged

Box = tuple[int, int, int, int]

# The types of TIFF that a number may have: struct's letter for one value.
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i"}
_TEXT, _RATIONALS = 2, (5, 10)
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


def orientation_of(image: PIL.Image.Image) -> int:
    """1 to 8 as EXIF defines it, of a file that Pillow opened; 1, as it is, where there is none or no valid one.

    A PNG may hold it after the pixels: decode it first.
    """
    if image.format == "HEIF":
        return _AS_IS  # the container says it, and libheif has turned the pixels
    found = None
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        # A TIFF file's own tag; Pillow removes it where it has turned the pixels itself.
        with suppress(Exception):
            found = tags.get(_TAG)
    else:
        found = exif_orientation(_exif(image.info))
        if found not in _VALUES:
            found = _xmp_orientation(image.info)
    return found if isinstance(found, int) and found in _VALUES else _AS_IS


def exif_orientation(exif: bytes) -> int | None:
    """The orientation tag of EXIF data, whatever else is wrong with them; None where it cannot be read."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    with suppress(struct.error):
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == _TAG:
                return _value(exif, order, kind, entry + 8)
    return None


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view of stored pixels, [H, W, ...], as they are to be seen."""
    if orientation in _SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in _MIRRORED_Y:
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in _MIRRORED_X else pixels


def as_stored(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The inverse of `turned`: a view of pixels as they are seen, in the order in which a file stores them."""
    return turned(pixels, {6: 8, 8: 6}.get(orientation, orientation))


def stored_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Where a box x0, y0, x1, y1 of the picture as it is seen, of the size (H, W), lies in the stored one."""
    (x0, y0, x1, y1), (height, width) = box, size
    if orientation in _MIRRORED_X:
        x0, x1 = width - x1, width - x0
    if orientation in _MIRRORED_Y:
        y0, y1 = height - y1, height - y0
    return (y0, x0, y1, x1) if orientation in _SIDEWAYS else (x0, y0, x1, y1)


def seen_size(image: PIL.Image.Image, orientation: int) -> tuple[int, int]:
    """(H, W) of an opened file as it is to be seen."""
    width, height = image.size
    tags = getattr(image, "tag_v2", {})
    # Pillow has exchanged the sides of a TIFF already where they are not those of its tags ImageWidth and ImageLength.
    exchanged = bool(tags) and (tags.get(256), tags.get(257)) != (width, height)
    return (width, height) if orientation in _SIDEWAYS and not exchanged else (height, width)


def _value(exif: bytes, order: str, kind: int, place: int) -> int | None:
    if kind in _NUMBERS:
        (number,) = struct.unpack_from(order + _NUMBERS[kind], exif, place)
        return int(number)
    if kind == _TEXT:
        text = exif[place : place + 1]
        return int(text) if text.isdigit() else None
    if kind in _RATIONALS:
        (place,) = struct.unpack_from(f"{order}I", exif, place)
        numerator, denominator = struct.unpack_from(f"{order}II", exif, place)
        return int(numerator // denominator) if denominator else None
    return None


def _exif(info: dict[Any, Any]) -> bytes:
    exif = info.get("exif")
    if isinstance(exif, bytes):
        return exif
    # ImageMagick's way to put it into a PNG: text, three lines of which come before the hexadecimal digits.
    profile = info.get("Raw profile type exif")
    if isinstance(profile, str):
        with suppress(ValueError):
            return bytes.fromhex("".join(profile.split("\n")[3:]))
    return b""


def _xmp_orientation(info: dict[Any, Any]) -> int | None:
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    match = _XMP.search(xmp if isinstance(xmp, bytes) else str(xmp).encode(errors="replace"))
    return int(match[1]) if match else None
