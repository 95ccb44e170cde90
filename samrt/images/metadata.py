"""What is beside a file's pixels: files without it, for pictures that Pillow refuses because of it; and bits."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

# The entry of an item of an AVIF, by its version: the number and the protection of the item come before its type.
_AVIF_EXIF = re.compile(rb"(infe(?:\x02.{3}.{4}|\x03.{3}.{6}))Exif", re.DOTALL)
_PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS")
_JPEG2000_SIZE = b"\xff\x4f\xff\x51"
_ADOBE, _ADOBE_LENGTH = 0xEE, 14  # which of JPEG's segments for applications says how colours are stored
_APPLICATIONS, _COMMENT, _SCAN = range(0xE0, 0xF0), 0xFE, 0xDA


def bare_avif(data: bytes) -> bytes:
    """An AVIF whose EXIF items have another type.

    Its orientation is the container's; Pillow rewrites EXIF to say so, and neither Pillow nor libavif opens a file
    whose EXIF they cannot read.
    """
    return _AVIF_EXIF.sub(rb"\1skip", data)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The name of each chunk of a PNG, and where the chunk begins and ends."""
    place = 8
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        yield data[place + 4 : place + 8], place, place + 12 + length
        place += 12 + length


def bare_png(data: bytes) -> tuple[bytes, bytes]:
    """A PNG's chunks that hold the pixels, and its EXIF data."""
    kept, exif = [data[:8]], b""
    for name, start, end in png_chunks(data):
        if name in _PNG_PIXELS:
            kept.append(data[start:end])
        elif name == b"eXIf":
            exif = data[start + 8 : end - 4]
    return b"".join(kept), exif


def bits_of_jpeg2000(data: bytes) -> int:
    """The most bits that a channel of a JPEG 2000 file has, from the first segment of its codestream."""
    start = data.find(_JPEG2000_SIZE)
    if start < 0 or len(data) < start + 42:
        return 0
    (channels,) = struct.unpack_from(">H", data, start + 40)
    # One byte of three for each channel: the sign, and the bits less one.
    return max(((bits & 0x7F) + 1 for bits in data[start + 42 : start + 42 + 3 * channels : 3]), default=0)


def bare_jpeg(data: bytes) -> tuple[bytes, bytes]:
    """A JPEG without its applications' segments and comments, and its EXIF data."""
    kept, exif, place = [data[:2]], b"", 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        kind = data[place + 1]
        if kind == 0xFF:  # fills up
            place += 1
            continue
        if kind == _SCAN:
            break
        (length,) = struct.unpack_from(">H", data, place + 2)
        segment = data[place : place + 2 + length]
        if (kind == _ADOBE and length >= _ADOBE_LENGTH) or kind not in (*_APPLICATIONS, _COMMENT):
            kept.append(segment)
        elif segment[4:10] == b"Exif\0\0" and not exif:
            exif = segment[4:]
        place += len(segment)
    return b"".join([*kept, data[place:]]), exif
