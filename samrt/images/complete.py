"""Files that end early or have gaps, which their decoders do not report: are all pixels there?"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib

import PIL.Image
from PIL.JpegImagePlugin import JpegImageFile

from samrt.images.metadata import png_chunks

_END = b"\xff\xd9"
# Noise may happen to be what is missing.
_SEEDS = (85, 170, 240)
_SCAN, _RESTART = b"\xff\xda", re.compile(rb"\xff[\xd0-\xd7]")
# Of a PNG: the channels by colour type; by interlacing, the first column and row and the steps of each pass.
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PASSES = {False: ((0, 0, 1, 1),), True: _ADAM7}
_INFLATED_AT_ONCE = 2**20


def lacks_rows(image: PIL.Image.Image, data: bytes) -> bool:
    """Whether the pixel data of a PNG, of which `image` was decoded, end in good order before the last row.

    zlib then reports no error, and Pillow leaves the rows that are missing 0.
    """
    if not image.info.get("interlace") and any(image.crop((0, image.height - 1, *image.size)).tobytes()):
        return False
    missing = 0
    inflate = zlib.decompressobj()
    for name, start, end in png_chunks(data):
        if name == b"IHDR":
            width, height, bits, colours, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, start + 8)
            for left, top, right, down in _PASSES[interlaced > 0]:
                columns, rows = -((left - width) // right), -((top - height) // down)
                # Each row begins with the number of its filter.
                missing += rows * (1 + (columns * bits * _CHANNELS[colours] + 7) // 8) if columns > 0 else 0
        elif name == b"IDAT":
            packed = data[start + 8 : end - 4]
            while missing > 0 and (inflated := inflate.decompress(packed, _INFLATED_AT_ONCE)):
                missing -= len(inflated)
                packed = inflate.unconsumed_tail
    return missing > 0


def lacks_tiles(image: PIL.Image.Image) -> bool:
    """Whether the strips or tiles of a TIFF that is not decoded yet leave a part of it out, which Pillow leaves 0."""
    tags = getattr(image, "tag_v2", {})
    tiles = getattr(image, "tile", [])
    if not tags or not tiles:
        return False
    # Uncompressed, each channel may lie by itself.
    layers = len(image.getbands()) if tags.get(284) == 2 and tiles[0][0] == "raw" else 1
    covered = sum((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in tiles)
    return bool(covered < tags[256] * tags[257] * layers)


def complete_jpeg(data: bytes) -> PIL.Image.Image | None:
    """The decoded picture of a JPEG without its end marker; None where pixels are missing.

    libjpeg fills in what is missing without a word. But what follows the coded data of the last pixel makes no
    difference to a picture, and what follows the data of an earlier one does: so it is decoded with nothing and with
    noise behind it. Of a progressive file whole scans can be missing: without its end it counts as cut off.
    """
    whole = JpegImageFile(io.BytesIO(data + _END))
    if whole.info.get("progressive"):
        return None
    seen = {_digest(JpegImageFile(io.BytesIO(data + _noise(data, seed) + _END))) for seed in _SEEDS}
    return whole if seen == {_digest(whole)} else None


def _noise(data: bytes, seed: int) -> bytes:
    """Coded data of no picture, each before a restart marker, the first of which is the one that the decoder expects.

    Data come before it, because without restarts the decoder stops at the first marker.
    """
    restarts = _RESTART.findall(data, data.rfind(_SCAN) + 1)
    expected = restarts[-1][1] - 0xD0 + 1 if restarts else 0
    coded = bytes((seed + number * number * 167) % 251 for number in range(250))
    # The file may end within the pair 255, 0, which stands for 255.
    start = b"\0" if data.endswith(b"\xff") else b""
    return start + b"".join(coded + bytes([0xFF, 0xD0 + (expected + number) % 8]) for number in range(9))


def _digest(image: PIL.Image.Image) -> bytes:
    """Of the pixels, without a second copy of all of them."""
    image.load()
    digest = hashlib.sha256()
    rows = max(1, 2**22 // image.width)
    for top in range(0, image.height, rows):
        digest.update(image.crop((0, top, image.width, min(top + rows, image.height))).tobytes())
    return digest.digest()
