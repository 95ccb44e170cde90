"""Image files of all formats: `Model.encode` reads them through `read_image`."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
from fuzz.mutations import mutate_bytes
from images.written_files import chunk, exif, png, saved, short, tiff

from samrt import SamrtError
from samrt.images import read_image
from samrt.images.limits import MAX_PIXELS

# An image of 2^28 pixels takes 3 bytes each, what Pillow decodes 4 more, and 16 bits more again.
MEMORY = 4 << 30
_PNG = b"\x89PNG\r\n\x1a\n"


def corpus(folder: Path) -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 13, 4), np.uint8)
    picture = PIL.Image.fromarray(pixels)
    colour, grey = picture.convert("RGB"), picture.convert("L")
    files = [saved(colour, form) for form in ("PNG", "JPEG", "BMP", "GIF", "PPM", "JPEG2000", "TIFF", "WEBP")]
    if "AVIF" in PIL.Image.SAVE:
        files.append(saved(colour, "AVIF"))
    files += [saved(picture, form) for form in ("PNG", "TIFF", "WEBP")]
    files += [saved(grey, form) for form in ("PNG", "JPEG", "PPM", "TIFF")]
    files += [saved(colour, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "tiff_deflate", "packbits")]
    files += [
        saved(colour, "JPEG", progressive=True, exif=exif(short(0x112, 6))),
        saved(colour.convert("CMYK"), "JPEG"),
    ]
    files += [saved(grey.convert("1"), "TIFF", compression="group4"), saved(grey.convert("1"), "PPM")]
    files += [saved(colour.quantize(5), form) for form in ("PNG", "GIF", "BMP", "TIFF")]
    files += [saved(colour, "GIF", save_all=True, append_images=[colour.rotate(9)])]
    files += [saved(colour, "MPO", save_all=True, append_images=[colour.rotate(9)])]
    files += [saved(colour, "PNG", save_all=True, append_images=[colour.rotate(9)])]
    files += [
        saved(colour, "WEBP", lossless=True),
        saved(grey.convert("I;16"), "PNG"),
        saved(grey.convert("F"), "TIFF"),
    ]
    wide = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), np.uint16)
    files += [png(wide, 2, chunk(b"eXIf", exif(short(0x112, 5)))), tiff(wide, 2), tiff(wide[:, :, :1], 1, order=">")]
    files += [tiff(wide.astype(np.float32) / 65535, 2), tiff(wide[:, :, :1].astype(np.float32), 1)]
    large = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**14, 2**14, 8, 2, 0, 0, 0)) + chunk(
        b"IDAT", zlib.compress(b"\0" * 9)
    )
    return [*files, _PNG + large, b"%!PS-Adobe-3.0 EPSF-3.0\n", b"", b"P6 99999 99999 255\n", files[0][:40]]


def run(data: bytes, state: None) -> str:
    try:
        image = read_image(data)
    except SamrtError as error:
        return type(error).__name__
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert 0 < image.shape[0] * image.shape[1] <= MAX_PIXELS
    assert image.flags.c_contiguous
    # Memory that nothing was written to would differ.
    assert np.array_equal(read_image(data), image)
    return "taken"


def mutate(data: bytes, rng: random.Random) -> bytes:
    if not data.startswith(_PNG):
        return mutate_bytes(data, rng)
    chunks = _chunks(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(chunks))
        name, content = chunks[at]
        kind = rng.randrange(6)
        if kind == 0 and len(chunks) > 1:
            del chunks[at]
        elif kind == 1:
            chunks.insert(
                rng.randrange(len(chunks) + 1), (rng.choice((name, b"eXIf", b"iCCP", b"tRNS", b"fcTL")), content)
            )
        elif kind == 2 and name == b"IDAT":
            chunks[at] = (name, zlib.compress(mutate_bytes(_inflated(content), rng)))
        else:
            chunks[at] = (name, mutate_bytes(content, rng))
    return _PNG + b"".join(chunk(name, content) for name, content in chunks)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], len(_PNG)
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return found or [(b"IEND", b"")]


def _inflated(content: bytes) -> bytes:
    try:
        return zlib.decompress(content)
    except zlib.error:
        return content
