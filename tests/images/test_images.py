"""Every kind of image becomes uint8 [H, W, 3] RGB, or an error that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from samrt.errors import InputError
from samrt.images import read_image, read_part
from samrt.images.kinds import UNIT_HIGH, UNIT_LOW

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
ALPHA = np.full((5, 7, 1), 9, np.uint8)
GREY = RGB[..., 0]
GREY_RGB = np.stack([GREY] * 3, axis=2)


@pytest.mark.parametrize(
    ("image", "image_format", "expected"),
    [
        (RGB, "RGB", RGB),
        (RGB[..., ::-1], "BGR", RGB),
        (np.concatenate([RGB, ALPHA], 2), "RGB", RGB),
        (np.concatenate([RGB, ALPHA], 2), "RGBA", RGB),
        (np.concatenate([RGB[..., ::-1], ALPHA], 2), "BGRA", RGB),
        (np.concatenate([RGB[..., ::-1], ALPHA], 2), "BGR", RGB),
        (GREY, "GREY", GREY_RGB),
        (GREY, "RGB", GREY_RGB),
        (GREY[..., None], "BGR", GREY_RGB),
        (RGB[::-1, ::2], "RGB", RGB[::-1, ::2]),
        (np.asfortranarray(RGB), "RGB", RGB),
        (RGB[:1, :1], "RGB", RGB[:1, :1]),
    ],
)
def test_arrays(image: np.ndarray, image_format: str, expected: np.ndarray) -> None:
    result = read_image(image, image_format)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_arrays_in_0_to_1(dtype: Any) -> None:
    ramp = (np.arange(256).reshape(16, 16) / 255).astype(dtype)
    result = read_image(ramp)[..., 1]
    np.testing.assert_array_equal(result, np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("off", [1 + 1e-6, 1 - 1e-6])
def test_floating_arrays_off_by_a_rounding_error_are_clipped(off: float) -> None:
    image = np.array([[1.0, 0.5], [0.0, 1.0]], np.float32) * np.float32(off) + np.array([0, 0, -1e-7, 0]).reshape(2, 2)
    assert read_image(image)[..., 0].tolist() == [[255, 127 if off < 1 else 128], [0, 255]]


def test_floating_arrays_at_the_bounds_of_rounding() -> None:
    assert read_image(np.array([[UNIT_LOW, UNIT_HIGH]]))[0, :, 0].tolist() == [0, 255]


def test_floating_arrays_are_rounded() -> None:
    assert read_image(np.array([[0.0, 0.0039, 0.4999, 0.9999, 1.0]]))[0, :, 0].tolist() == [0, 1, 127, 255, 255]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (RGB.astype(np.float32), r"must lie in 0..1, the array lies in 0..24\d; divide"),
        (np.full((2, 2), -0.5), "must lie in 0..1, the array lies in -0.5"),
        (np.full((2, 2), 1.01), "must lie in 0..1, the array lies in 1.01"),
        (np.full((2, 2), np.nan), "NaN or infinity"),
        (np.array([[0.0, np.inf]]), "NaN or infinity"),
        (np.array([[np.inf, -np.inf]]), "NaN or infinity"),
        (np.zeros((2, 2), np.uint16), r"not uint16; divide by the largest value .*: image / 4095"),
        (np.zeros((2, 2), bool), "not bool; scale"),
        (np.zeros((2, 2), np.int64), "not int64; scale"),
        (np.zeros((2, 2), complex), "not complex128"),
        (np.full((2, 2), "x"), "not <U1"),
        (np.zeros((0, 4, 3), np.uint8), r"no pixels: its shape is \[0, 4, 3\]"),
        (np.zeros((4, 0), np.uint8), "no pixels"),
        (np.zeros((3, 8, 8), np.uint8), r"not \[3, 8, 8\]; put the channels last"),
        (np.zeros((1, 8, 8, 3), np.uint8), "one image at a time"),
        (np.zeros(8, np.uint8), "must be"),
        (np.zeros((2, 2), np.int16), "not int16; scale"),
        ([[1, 2], [3, 4]], "not list"),
        (None, "not NoneType"),
    ],
)
def test_arrays_that_are_refused(image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_image(image)


@pytest.mark.parametrize(
    ("image", "image_format", "message"),
    [
        (RGB, "rgb", "one of RGB, BGR, RGBA, BGRA, GREY, not 'rgb'"),
        (RGB, "RGBA", "RGBA needs 4 channels, the image has 3"),
        (RGB, "GREY", "GREY needs 1 channels, the image has 3"),
        (GREY, "BGRA", "BGRA needs 4 channels, the image has 1"),
    ],
)
def test_format_that_does_not_fit(image: np.ndarray, image_format: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_image(image, image_format)


def test_pil_image_without_pixels() -> None:
    with pytest.raises(InputError, match="no pixels: its size is 0x3"):
        read_image(PIL.Image.new("RGB", (0, 3)))


def test_path_as_text_and_as_path(tmp_path: Path) -> None:
    PIL.Image.fromarray(RGB).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png"), "BGR"), RGB)


def test_only_the_part_of_an_array_is_looked_at() -> None:
    image = np.full((6, 8, 3), np.nan, np.float32)
    image[1:4, 2:7] = 0.5
    part, size, _ = read_part(image, "BGR", lambda size: (2, 1, 7, 4))
    assert size == (6, 8)
    np.testing.assert_array_equal(part, np.full((3, 5, 3), 128, np.uint8))


def test_array_that_needs_no_conversion_is_not_copied() -> None:
    assert np.shares_memory(read_image(RGB), RGB)
