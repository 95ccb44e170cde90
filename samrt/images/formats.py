"""Which formats pictures may have, and opening a file with the plugin of Pillow that reads its format."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from typing import IO

import PIL.Image
from PIL import (  # noqa: F401  each registers its format
    BmpImagePlugin,
    GifImagePlugin,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from samrt.errors import InputError
from samrt.images.foreign import what_it_is
from samrt.images.limits import check_size
from samrt.images.metadata import bare_avif, bare_jpeg, bare_png

with suppress(ImportError):
    from PIL import AvifImagePlugin  # noqa: F401  since Pillow 11.3

# What Pillow may open, by its names, and what the docs say of each. The rest of Pillow's formats start other programs
# (EPS), are decoded in Python, or have no mark by which they are told apart.
FORMATS = {
    "JPEG": "Taken without its end marker too, where all pixels are there.",
    "MPO": "Several pictures in one JPEG file: the first.",
    "PNG": "Of an animated one, the first frame.",
    "WEBP": "Of an animated one, the first frame.",
    "AVIF": "Of a sequence, the first frame. Needs Pillow 11.3.",
    "HEIF": "HEIC files of phones. Needs `pip install pillow-heif`.",
    "TIFF": "The first page. A camera's raw file (DNG, NEF), whose first page is a small preview, is refused.",
    "BMP": "Also of 5 or 6 bits per channel.",
    "GIF": "Of an animated one, the first frame.",
    "JPEG2000": "Needs a Pillow that was built with OpenJPEG, as its wheels are.",
    "PPM": "PBM, PGM, PPM, and PFM of grey.",
}

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
# What Pillow's plugins raise while they read what comes before or after the pixels.
PLUGIN_ERRORS = (
    SyntaxError,
    IndexError,
    TypeError,
    KeyError,
    EOFError,
    ValueError,
    AssertionError,
    struct.error,
    zlib.error,
)


def identify(file: IO[bytes], name: str) -> PIL.Image.Image:
    """Open a file with the first plugin of `FORMATS` that knows it.

    Not by PIL.Image.open, which refuses 200 megapixels by a limit that is one for the whole process.
    """
    file.seek(0)
    start = file.read(64)
    reasons = []
    for each in FORMATS:
        if each == "HEIF":
            opened = _open_heif(file, start, name)
            if opened is not None:
                return opened
            continue
        factory, accept = PIL.Image.OPEN.get(each, (None, None))
        accepted = factory is not None and (accept is None or accept(start[:16]))
        if factory is None or not accepted:
            continue
        if isinstance(accepted, str):
            raise InputError(
                f"{name} is a {each} file, which this Pillow was built without; pip install --force-reinstall pillow, "
                "or convert it to PNG or JPEG"
            )
        file.seek(0)
        try:
            return factory(io.BytesIO(bare_avif(file.read())) if each == "AVIF" else file, "")
        except PLUGIN_ERRORS as error:
            bare = without_metadata(file, each, name)
            if bare is not None:
                return bare
            reasons.append(f"it begins as {each} does, and Pillow says: {error}")
    if not reasons:
        what, remedy = what_it_is(start)
        raise InputError(f"{name} is not an image in a format that samrt reads{what}; {remedy}")
    raise InputError(f"{name} cannot be opened ({'; '.join(reasons)}); open it in a viewer and save it again")


def without_metadata(file: IO[bytes], form: str | None, name: str) -> PIL.Image.Image | None:
    """A picture that Pillow refuses because of what is beside its pixels, without that; None if it still does.

    Raises:
        InputError: it is too large.
    """
    if form not in ("JPEG", "MPO", "PNG"):
        return None
    file.seek(0)
    try:
        data, exif = (bare_png if form == "PNG" else bare_jpeg)(file.read())
        image: PIL.Image.Image = PIL.Image.OPEN["PNG" if form == "PNG" else "JPEG"][0](io.BytesIO(data), "")
    except (*PLUGIN_ERRORS, OSError):
        return None
    # It was refused before anyone could see its size.
    check_size(name, image, file)
    try:
        image.load()
    except (*PLUGIN_ERRORS, OSError):
        return None
    image.info["exif"] = exif
    return image


def _open_heif(file: IO[bytes], start: bytes, name: str) -> PIL.Image.Image | None:
    if start[4:8] != b"ftyp" or start[8:12] not in _HEIF_BRANDS:
        return None
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise InputError(
            f"{name} is a HEIF file, which Pillow reads with the package pillow-heif only; pip install pillow-heif, or "
            "convert it to PNG or JPEG"
        ) from error
    file.seek(0)
    image: PIL.Image.Image = HeifImageFile(file, "")
    return image
