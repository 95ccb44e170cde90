"""Only the orientation tag of EXIF is read, however damaged the rest is."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from written_files import chunk, entry, exif, png, saved, short, tiff

from samrt.evaluation.reading import read_frame, read_id_map
from samrt.images import read_image, read_part
from samrt.images.orientation import exif_orientation

ORIENTATION = 0x0112
RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
PHOTO = PIL.Image.fromarray(RGB).resize((64, 48), PIL.Image.Resampling.BICUBIC)
# What EXIF's definition says of each value: where the stored first row and the first column are seen.
SEEN = {
    1: RGB,
    2: np.fliplr(RGB),
    3: np.rot90(RGB, 2),
    4: np.flipud(RGB),
    5: RGB.transpose(1, 0, 2),
    6: np.rot90(RGB, -1),
    7: np.rot90(RGB, 2).transpose(1, 0, 2),
    8: np.rot90(RGB),
}
SIX = short(ORIENTATION, 6)
NEGATIVE = entry(0x011A, 10, 1, struct.pack("<I", 38)) + b"\xfb\xff\xff\xff\x01\0\0\0"

# EXIF data that are damaged or odd, and the orientation in them.
ODD = {
    "whole": (exif(SIX), 6),
    "big-endian": (exif(short(ORIENTATION, 6, ">"), order=">"), 6),
    "prefix twice": (b"Exif\0\0Exif\0\0" + exif(SIX), 6),
    "long": (exif(entry(ORIENTATION, 4, 1, struct.pack("<I", 8))), 8),
    "byte": (exif(entry(ORIENTATION, 1, 1, b"\x03")), 3),
    "text": (exif(entry(ORIENTATION, 2, 2, b"6\0")), 6),
    "text, no number": (exif(entry(ORIENTATION, 2, 2, b"x\0")), 1),
    "rational": (exif(entry(ORIENTATION, 5, 1, struct.pack("<I", 26))) + struct.pack("<II", 12, 2), 6),
    "rational, by zero": (exif(entry(ORIENTATION, 5, 1, struct.pack("<I", 26))) + struct.pack("<II", 6, 0), 1),
    "rational outside": (exif(entry(ORIENTATION, 5, 1, struct.pack("<I", 2**31))), 1),
    "unknown type": (exif(entry(ORIENTATION, 77, 1, b"\x06")), 1),
    "0": (exif(short(ORIENTATION, 0)), 1),
    "9": (exif(short(ORIENTATION, 9)), 1),
    "twice": (exif(SIX, short(ORIENTATION, 3)), 6),
    "negative rational": (exif(NEGATIVE[:12], SIX) + NEGATIVE[12:], 6),
    "text in place of a number": (exif(entry(0x0128, 2, 50, b"\xff\xff\0\0"), SIX), 6),
    "more entries than there are": (exif(SIX, count=60000), 6),
    "pointers that lead out": (exif(entry(0x8769, 4, 1, b"\xff" * 4), entry(0x8825, 4, 1, b"\xff" * 4), SIX), 6),
    "directory that is its own": (exif(entry(0x8769, 4, 1, struct.pack("<I", 8)), SIX), 6),
    "cut in the entry": (exif(SIX)[:18], 1),
    "cut in the head": (exif(SIX)[:5], 1),
    "empty": (b"", 1),
    "noise": (bytes(range(200)), 1),
    "first directory outside": (b"II*\0\xff\xff\xff\xff", 1),
}


def jpeg_with(data: bytes) -> bytes:
    """A JPEG whose APP1 segment is this, which Pillow does not look at."""
    jpeg = saved(PHOTO, "JPEG")
    segment = b"Exif\0\0" + data
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


@pytest.mark.parametrize("value", SEEN)
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_every_orientation(tmp_path: Path, form: str, value: int) -> None:
    options = {"WEBP": {"lossless": True, "exif": exif(short(ORIENTATION, value))}, "PNG": {"exif": exif(SIX)}}
    file = saved(PIL.Image.fromarray(RGB), form, **options.get(form, {}))
    if form == "PNG":
        file = png(RGB.astype(np.uint16), 2, chunk(b"eXIf", exif(short(ORIENTATION, value))))  # behind the pixels
    if form == "TIFF":
        file = tiff(RGB, 2, {ORIENTATION: value})
    np.testing.assert_array_equal(read_image(file), SEEN[value])
    (tmp_path / "a").write_bytes(file)
    frame = read_frame(tmp_path / "a")
    assert frame.size == SEEN[value].shape[:2]
    assert frame.turned == (value != 1)


@pytest.mark.parametrize("value", SEEN)
def test_part_of_a_turned_picture(value: int) -> None:
    file = saved(PIL.Image.fromarray(RGB), "WEBP", lossless=True, exif=exif(short(ORIENTATION, value)))
    part, size, box = read_part(file, "RGB", lambda _: (1, 2, 4, 5))
    assert (size, box) == (SEEN[value].shape[:2], (1, 2, 4, 5))
    np.testing.assert_array_equal(part, SEEN[value][2:5, 1:4])


@pytest.mark.parametrize("name", ODD)
def test_odd_exif_never_refuses_a_photograph(name: str) -> None:
    data, value = ODD[name]
    plain = np.asarray(PIL.Image.open(io.BytesIO(saved(PHOTO, "JPEG"))))
    for treatment in ("ignore", "error"):
        with warnings.catch_warnings():
            warnings.simplefilter(treatment)
            result = read_image(jpeg_with(data))
        turned = {1: plain, 3: np.rot90(plain, 2), 6: np.rot90(plain, -1), 8: np.rot90(plain)}[value]
        np.testing.assert_array_equal(result, turned)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("form", ["PNG", "WEBP", "AVIF"])
def test_odd_exif_in_other_formats(form: str, name: str) -> None:
    if form not in PIL.Image.SAVE:
        pytest.skip(f"{form} is not in this Pillow")
    options = {"quality": 90} if form == "AVIF" else {}
    # Of an AVIF the orientation is not EXIF's but the container's.
    place = exif(*[short(0x1000 + n, 0) for n in range(14)])
    file = saved(PHOTO, form, exif=place, **options)
    assert file.count(place) == 1
    data, value = ODD[name]
    if len(data) > len(place):
        pytest.skip("it does not fit in the place of the other")
    file = file.replace(place, data.ljust(len(place), b"\0"))
    if form == "PNG":
        start = file.index(b"eXIf")
        body = file[start + 4 : start + 4 + len(place)]
        file = file[: start - 4] + chunk(b"eXIf", body) + file[start + 8 + len(place) :]
    turned = form != "AVIF" and value in (6, 8)
    assert read_image(file).shape == ((64, 48, 3) if turned else (48, 64, 3))


def test_orientation_of_xmp_and_of_a_text_profile() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'
    assert read_image(saved(PHOTO, "WEBP", xmp=xmp)).shape == (64, 48, 3)
    profile = f"\nexif\n{len(exif(SIX)):8}\n{exif(SIX).hex()}\n".encode()
    text = chunk(b"tEXt", b"Raw profile type exif\0" + profile)
    assert read_image(png(RGB.astype(np.uint16), 2, text)).shape == (7, 5, 3)
    assert read_image(png(RGB.astype(np.uint16), 2, text.replace(profile, profile[:-9] + b"not hexa\n"))).size


def test_a_map_of_ids_is_turned_by_its_own_orientation(tmp_path: Path) -> None:
    PIL.Image.fromarray(RGB[..., 0]).save(tmp_path / "ids.png", exif=exif(SIX))
    np.testing.assert_array_equal(read_id_map(tmp_path / "ids.png", (7, 5)), np.rot90(RGB[..., 0], -1))


def test_pil_image_is_taken_as_it_is(tmp_path: Path) -> None:
    PIL.Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif(SIX))
    with PIL.Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(read_image(image), RGB)


def test_every_cut_of_exif_is_read_without_an_error() -> None:
    data = exif(short(0x0100, 1), SIX, short(0x0128, 2))
    found = {exif_orientation(data[:length]) for length in range(len(data))}
    assert found == {None, 6}
