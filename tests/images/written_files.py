"""Image files that no library writes: PNGs and TIFFs of every depth, byte for byte."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import PIL.Image


def saved(image: PIL.Image.Image, form: str, **options: Any) -> bytes:
    """A file that Pillow writes."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(pixels: np.ndarray, colour_type: int, *extra: bytes) -> bytes:
    """A PNG of 16 bits, [H, W, channels]; `extra` chunks follow the pixels."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + b"".join(extra) + chunk(b"IEND", b"")


def tiff(pixels: np.ndarray, photometric: int, tags: dict[int, int] | None = None, order: str = "<") -> bytes:
    """An uncompressed TIFF [H, W, channels]; `tags` are added, each one SHORT."""
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    height, width, channels = pixels.shape
    bits = [pixels.dtype.itemsize * 8] * channels
    form = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    values: dict[int, list[int]] = {
        256: [width],
        257: [height],
        258: bits,
        259: [1],
        262: [photometric],
        277: [channels],
    }
    values |= {278: [height], 279: [len(data)], 339: [form] * channels, 273: [0]}
    values |= {tag: [value] for tag, value in (tags or {}).items()}
    place = 8 + 2 + 12 * len(values) + 4  # of what does not fit into an entry
    beside = b""
    entries = b""
    values[273] = [place + sum(2 * len(each) for each in values.values() if len(each) > 2)]
    for tag, numbers in sorted(values.items()):
        long = tag in (273, 279)
        packed = struct.pack(f"{order}{len(numbers)}{'I' if long else 'H'}", *numbers)
        if len(packed) > 4:
            packed, beside = struct.pack(f"{order}I", place + len(beside)), beside + packed
        entries += struct.pack(f"{order}HHI", tag, 4 if long else 3, len(numbers)) + packed.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", len(values))
    return head + entries + b"\0" * 4 + beside + data


def exif(*entries: bytes, order: str = "<", count: int | None = None) -> bytes:
    """EXIF data of 12-byte entries."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return head + struct.pack(f"{order}H", len(entries) if count is None else count) + b"".join(entries) + b"\0" * 4


def entry(tag: int, kind: int, count: int, value: bytes, order: str = "<") -> bytes:
    """One entry of EXIF."""
    return struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0")


def short(tag: int, value: int, order: str = "<") -> bytes:
    """An entry with one number of 16 bits."""
    return entry(tag, 3, 1, struct.pack(f"{order}H", value), order)
