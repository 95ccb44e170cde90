"""The table of kinds, `samrt.images.kinds.KINDS`: a picture of every kind, and the pixels that it must become."""

from __future__ import annotations

import warnings
from io import BytesIO

import cv2
import numpy as np
import PIL.Image
import pytest
from written_files import png, saved, tiff

from samrt.errors import InputError
from samrt.images import read_image
from samrt.images.kinds import KINDS, rgb_into
from samrt.images.picture import given, open_picture

H, W = 5, 7
RGB = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(1).integers(1, 256, (H, W, 1), dtype=np.uint8)
GREY = RGB[..., 0]
LEVELS = np.random.default_rng(2).integers(0, 2**16, (H, W, 4), dtype=np.uint16)
LEVELS[0, 0] = 65535
Image = PIL.Image.Image


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.reshape(H, W, 1), 3, axis=2)


def scaled(levels: np.ndarray, top: int) -> np.ndarray:
    return np.rint(levels.astype(np.float64) / top * 255)


def pil(array: np.ndarray, mode: str | None = None) -> Image:
    image = PIL.Image.fromarray(array)
    return image if mode is None else image.convert(mode)


def palette(alpha: bool = False) -> Image:
    image = raw("P", GREY % 4)
    image.putpalette([9, 8, 7, 0, 0, 255, 255, 255, 255, 100, 0, 3])
    return image.convert("PA") if alpha else image


def raw(mode: str, array: np.ndarray) -> Image:
    return PIL.Image.frombytes(mode, (W, H), np.ascontiguousarray(array).tobytes())


def of_bits(bits: int, channels: int = 1) -> np.ndarray:
    """Levels of which one has all of its bits set."""
    return LEVELS[..., :channels] >> (16 - bits)


RGBA = np.concatenate([RGB, ALPHA], 2)
COLOURS = np.array([[9, 8, 7], [0, 0, 255], [255, 255, 255], [100, 0, 3]])[GREY % 4]
LIGHT = raw("LAB", np.full((H, W, 3), [138, 81, 70], np.uint8))  # sRGB's red: L 54 of 100, a 81, b 70
INK = np.concatenate([RGB, ALPHA // 2], 2)
PRINTED = (255.0 - RGB) * (255 - ALPHA // 2) / 255
EXTRA = 338  # TIFF's tag ExtraSamples: 0 unspecified, 1 multiplied by alpha, 2 alpha

# Kind, file or PIL image, what it must become, and by how much a value may differ.
CASES: list[tuple[str, str, bytes | Image, np.ndarray, int]] = [
    ("1", "PNG", saved(pil(GREY > 99), "PNG"), grey((GREY > 99) * 255), 0),
    ("1", "PBM", saved(pil(GREY > 99), "PPM"), grey((GREY > 99) * 255), 0),
    ("L", "PNG", saved(pil(GREY), "PNG"), grey(GREY), 0),
    ("L", "TIFF, 0 is white", tiff(GREY[..., None], 0), grey(255 - GREY), 0),
    ("L", "JPEG", saved(PIL.Image.new("L", (W, H), 90), "JPEG"), np.full((H, W, 3), 90), 1),
    ("LA", "PNG", saved(pil(np.dstack([GREY, ALPHA])), "PNG"), grey(GREY), 0),
    ("La", "PIL", pil(np.dstack([GREY, ALPHA * 0 + 255])).convert("La"), grey(GREY), 0),
    ("P", "PNG", saved(palette(), "PNG"), COLOURS, 0),
    ("P", "PNG, transparent", saved(palette(), "PNG", transparency=b"\0\x80\xff\xff"), COLOURS, 0),
    ("P", "GIF, transparent", saved(palette(), "GIF", transparency=1), COLOURS, 0),
    ("P", "BMP", saved(palette(), "BMP"), COLOURS, 0),
    ("PA", "PIL", palette(alpha=True), COLOURS, 0),
    ("RGB", "PNG", saved(pil(RGB), "PNG"), RGB, 0),
    ("RGB", "WEBP", saved(pil(RGB), "WEBP", lossless=True), RGB, 0),
    ("RGB", "TIFF", tiff(RGB, 2), RGB, 0),
    ("RGB", "JPEG2000", saved(pil(RGB), "JPEG2000"), RGB, 0),
    ("RGB", "PPM", saved(pil(RGB), "PPM"), RGB, 0),
    (
        "RGB",
        "PPM of 10 bits",
        b"P6 7 5 1023\n" + of_bits(10, 3).astype(">u2").tobytes(),
        scaled(of_bits(10, 3), 1023),
        1,
    ),
    ("RGBA", "PNG", saved(pil(RGBA), "PNG"), RGB, 0),
    ("RGBA", "PNG, all transparent", saved(pil(np.dstack([RGB, ALPHA * 0])), "PNG"), RGB, 0),
    ("RGBX", "PIL", pil(RGB, "RGBX"), RGB, 0),
    ("RGBa", "PIL", pil(np.dstack([RGB, ALPHA * 0 + 255])).convert("RGBa"), RGB, 0),
    ("CMYK", "TIFF", saved(raw("CMYK", INK), "TIFF"), PRINTED, 2),
    ("CMYK", "JPEG", saved(PIL.Image.new("CMYK", (W, H), (40, 90, 200, 30)), "JPEG"), [190, 146, 49] + RGB * 0, 3),
    ("YCbCr", "PIL", PIL.Image.new("YCbCr", (W, H), (76, 85, 255)), [254, 0, 0] + RGB * 0, 1),
    ("HSV", "PIL", PIL.Image.new("HSV", (W, H), (85, 255, 200)), [0, 200, 0] + RGB * 0, 1),
    ("LAB", "TIFF", saved(LIGHT, "TIFF"), [255, 0, 0] + RGB * 0, 6),
    ("I;16", "PNG of 12 bits", png(of_bits(12), 0), grey(scaled(of_bits(12), 4095)), 0),
    ("I;16", "PNG of 16 bits", png(of_bits(16), 0), grey(scaled(of_bits(16), 65535)), 0),
    ("I;16", "PNG of 8 bits in 16", png(of_bits(8), 0), grey(of_bits(8)), 0),
    ("I;16", "TIFF of 14 bits", tiff(of_bits(14), 1), grey(scaled(of_bits(14), 16383)), 0),
    ("I;16", "TIFF, 0 is white", tiff(of_bits(10), 0), grey(scaled(1023 - of_bits(10), 1023)), 0),
    ("I;16B", "TIFF", tiff(of_bits(10), 1, order=">"), grey(scaled(of_bits(10), 1023)), 0),
    ("I;16L", "PIL", raw("I;16L", of_bits(10)), grey(scaled(of_bits(10), 1023)), 0),
    ("I;16N", "PIL", raw("I;16N", of_bits(10)), grey(scaled(of_bits(10), 1023)), 0),
    ("I", "TIFF", tiff(of_bits(12).astype(np.int32), 1), grey(scaled(of_bits(12), 4095)), 0),
    ("I", "PGM of 10 bits", b"P5 7 5 1023\n" + of_bits(10).astype(">u2").tobytes(), grey(scaled(of_bits(10), 1023)), 1),
    ("F", "TIFF", tiff((GREY[..., None] / 255).astype(np.float32), 1), grey(GREY), 0),
    ("F", "PIL, off by rounding", raw("F", (GREY / 255 * 1.000001).astype(np.float32)), grey(GREY), 0),
    ("RGB;16", "PNG of 10 bits", png(of_bits(10, 3), 2), scaled(of_bits(10, 3), 1023), 0),
    ("RGB;16", "PNG of 16 bits", png(of_bits(16, 3), 2), scaled(of_bits(16, 3), 65535), 0),
    ("RGB;16", "TIFF of 12 bits", tiff(of_bits(12, 3), 2), scaled(of_bits(12, 3), 4095), 0),
    ("RGB;16", "TIFF, big-endian", tiff(of_bits(12, 3), 2, order=">"), scaled(of_bits(12, 3), 4095), 0),
    ("RGB;16", "PIL, not decoded", PIL.Image.open(BytesIO(png(of_bits(10, 3), 2))), scaled(of_bits(10, 3), 1023), 0),
    ("RGBA;16", "PNG", png(of_bits(12, 4), 6), scaled(of_bits(12, 3), 4095), 0),
    ("RGBA;16", "TIFF", tiff(of_bits(12, 4), 2, {EXTRA: 2}), scaled(of_bits(12, 3), 4095), 0),
    ("LA;16", "PNG", png(of_bits(12, 2), 4), grey(scaled(of_bits(12), 4095)), 0),
]
# Kind, what it is, the file or the image, and why it is refused.
REFUSED: list[tuple[str, str, bytes | Image, str]] = [
    ("I", "negative", tiff(np.full((H, W, 1), -5, np.int32), 1), "values from -5 to -5, whose range is unknown; scale"),
    ("I", "large", tiff(np.full((H, W, 1), 70000, np.int32), 1), "to 70000, whose range is unknown"),
    ("F", "0..255", tiff(RGB[..., :1].astype(np.float32), 1), r"lies in \d+..2\d\d; divide by its range"),
    ("F", "NaN", tiff(np.full((H, W, 1), np.nan, np.float32), 1), "contains NaN"),
    ("RGBX;16", "TIFF", tiff(LEVELS, 2, {EXTRA: 0}), "kind RGBX;16 .*does not convert; save it with 8 bits"),
    ("RGBa;16", "TIFF", tiff(LEVELS, 2, {EXTRA: 1}), "kind RGBa;16 "),
    ("CMYK;16", "TIFF", tiff(LEVELS, 5), "kind CMYK;16 "),
]


def kind_of(source: bytes | Image) -> str:
    if isinstance(source, bytes):
        with open_picture(source) as picture:
            return picture.kind
    return given(source).kind


@pytest.mark.parametrize(("kind", "what", "source", "expected", "off"), CASES, ids=lambda each: str(each)[:20])
def test_kinds_become_what_the_table_says(
    kind: str, what: str, source: bytes | Image, expected: np.ndarray, off: int
) -> None:
    # Before Pillow 11.3, a grey PNG of 16 bits is an "I".
    assert kind_of(source) in (kind, "I" if kind == "I;16" else kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = read_image(source)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, expected, rtol=0, atol=off)


@pytest.mark.parametrize(("kind", "what", "source", "message"), REFUSED, ids=lambda each: str(each)[:20])
def test_kinds_that_are_refused(kind: str, what: str, source: bytes | Image, message: str) -> None:
    assert kind_of(source) == kind
    with pytest.raises(InputError, match=message):
        read_image(source)


@pytest.mark.parametrize("bits", [10, 16])
def test_colours_of_jpeg_2000(bits: int) -> None:
    levels = np.add.outer(np.arange(64), np.arange(64))[..., None] * np.array([1, 3, 8]) * 2 ** (bits - 10)
    levels = levels.astype(np.uint16)
    file = cv2.imencode(".jp2", levels)[1].tobytes()
    np.testing.assert_allclose(read_image(file), scaled(levels, 2**bits - 1)[..., ::-1], rtol=0, atol=1)
    assert kind_of(PIL.Image.open(BytesIO(file))) == "RGB;16"


def test_every_kind_is_tried() -> None:
    assert {case[0] for case in CASES} | {case[0] for case in REFUSED} == set(KINDS)
    refused = {kind for kind, entry in KINDS.items() if entry.result == "refused"}
    assert {case[0] for case in CASES} == set(KINDS) - refused


def test_pil_image_of_16_bits_without_its_file() -> None:
    picture = given(PIL.Image.open(BytesIO(png(of_bits(10, 3), 2))))
    picture.file = None  # as where it is at another frame than the first
    with pytest.raises(InputError, match="of which Pillow keeps the high 8; pass the file's path"):
        rgb_into(np.empty((H, W, 3), np.uint8), picture, (0, 0, W, H))


def test_mode_that_no_row_knows() -> None:
    class Odd(PIL.Image.Image):
        mode = "odd"
        size = (W, H)

    with pytest.raises(InputError, match=r"kind odd \(unknown\), which samrt does not convert"):
        read_image(Odd())


@pytest.mark.parametrize("first", [0, 1])
def test_first_of_several_frames(first: int) -> None:
    frames = [PIL.Image.new("RGB", (W, H), (200 * (n == first), 0, 0)) for n in range(2)]
    for form in ("GIF", "TIFF", "PNG", "WEBP", "MPO"):
        file = saved(frames[0], form, save_all=True, append_images=frames[1:])
        assert abs(int(read_image(file)[2, 2, 0]) - 200 * (first == 0)) <= 2, form
