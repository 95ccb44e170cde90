"""JPEG files that end without their end marker, as some cameras write them: whole, or cut off?"""

from __future__ import annotations

import hashlib
import io
import re

import PIL.Image
from PIL.JpegImagePlugin import JpegImageFile

_END = b"\xff\xd9"
# Noise may happen to be what is missing.
_SEEDS = (85, 170, 240)
_SCAN, _RESTART = b"\xff\xda", re.compile(rb"\xff[\xd0-\xd7]")


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
