"""How large pictures may be."""

from __future__ import annotations

from typing import IO

import PIL.Image

from samrt.errors import InputError

# The number of pixels of a square with the side 2^14: the 200 megapixels of cameras fit, and JPEG's largest square not.
MAX_PIXELS = 2**28
# An empty page in the format that compresses least of all, PNG, takes 8,256 pixels to a byte. Only pictures that are
# large too are measured by that.
_MOST_PER_BYTE, _LARGE = 10_000, 2**24


def check_size(name: str, image: PIL.Image.Image, file: IO[bytes]) -> None:
    """Look at the size that a picture declares, before it is decoded.

    Args:
        name: what errors call it.
        image: as Pillow opened it.
        file: the file, or what it holds.

    Raises:
        InputError: it has more pixels than samrt reads, or than its file can hold.
    """
    width, height = image.size
    pixels = width * height
    if pixels > MAX_PIXELS:
        raise InputError(
            f"{name} has {width}x{height} pixels, {pixels:,} in all, and samrt reads {MAX_PIXELS:,} at most; shrink "
            "it, or pass parts of it as arrays"
        )
    if pixels > _LARGE and pixels > _MOST_PER_BYTE * file.seek(0, 2):
        raise InputError(
            f"{name} declares {width}x{height} pixels in {file.tell():,} bytes, which no photograph needs so few for; "
            "convert it to another format if you trust it"
        )
