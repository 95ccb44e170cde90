"""PNGs whose pixel data end in good order before the last row, and TIFFs that lack strips."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from written_files import chunk, tiff

from samrt.errors import InputError
from samrt.images import read_image

# Bytes of each row of 3 x 5 pixels (height x width), with its filter; interlaced, the rows of the seven passes.
ROWS = {"grey": ((6,) * 3, 8, 0, 0), "16 bits": ((31,) * 3, 16, 2, 0), "bits": ((2,) * 3, 1, 0, 0)}
ROWS |= {"alpha": ((11,) * 3, 8, 4, 0), "interlaced": ((2, 2, 2, 4, 3, 3, 6), 8, 0, 1)}


def png(kind: str, without: int, level: int) -> bytes:
    """A PNG of pixels of one level, without so many rows at its end."""
    lengths, bits, colours, interlaced = ROWS[kind]
    rows = b"".join(b"\0" + bytes([level]) * (length - 1) for length in lengths[: len(lengths) - without])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 3, bits, colours, 0, 0, interlaced))
    data = chunk(b"IDAT", zlib.compress(rows, 0))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("kind", ROWS)
def test_rows_that_are_missing(kind: str, level: int) -> None:
    np.testing.assert_array_equal(read_image(png(kind, 0, level)), np.full((3, 5, 3), level))
    for without in (1, 2):
        with pytest.raises(InputError, match=r"is truncated: .*its pixel data end before the last row"):
            read_image(png(kind, without, level))


@pytest.mark.parametrize("tags", [{278: 2}, {284: 2}, {278: 2, 284: 2}])
def test_strips_that_are_missing(tags: dict[int, int]) -> None:
    # One strip holds all, and the tags say that each has two rows, or one channel.
    with pytest.raises(InputError, match=r"is truncated: .*strips or tiles of it are missing"):
        read_image(tiff(np.full((5, 4, 3), 200, np.uint8), 2, tags))


def test_channels_by_themselves() -> None:
    pixels = np.full((5, 4, 1), 200, np.uint8)
    np.testing.assert_array_equal(read_image(tiff(pixels, 1, {284: 2})), np.full((5, 4, 3), 200))
