"""Every kind of image becomes uint8 [H, W, 3] RGB, or an error that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from samrt.errors import InputError
from samrt.images import read_image

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


def test_floating_arrays_are_rounded() -> None:
    assert read_image(np.array([[0.0, 0.0039, 0.4999, 0.9999, 1.0]]))[0, :, 0].tolist() == [0, 1, 127, 255, 255]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (RGB.astype(np.float32), r"must lie in 0..1, this one in 0..24\d; divide"),
        (np.full((2, 2), -0.5), "must lie in 0..1, this one in -0.5"),
        (np.full((2, 2), np.nan), "NaN or infinity"),
        (np.array([[0.0, np.inf]]), "NaN or infinity"),
        (np.array([[np.inf, -np.inf]]), "NaN or infinity"),
        (np.zeros((2, 2), np.uint16), r"not uint16; scale.*astype\(numpy.uint8\)"),
        (np.zeros((2, 2), bool), "not bool; scale"),
        (np.zeros((2, 2), np.int64), "not int64; scale"),
        (np.zeros((2, 2), complex), "not complex128"),
        (np.full((2, 2), "x"), "not <U1"),
        (np.zeros((0, 4, 3), np.uint8), r"no pixels: its shape is \[0, 4, 3\]"),
        (np.zeros((4, 0), np.uint8), "no pixels"),
        (np.zeros((3, 8, 8), np.uint8), r"not \[3, 8, 8\]; put the channels last"),
        (np.zeros((1, 8, 8, 3), np.uint8), "one image at a time"),
        (np.zeros(8, np.uint8), "must be"),
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


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_pil_modes(mode: str) -> None:
    white = PIL.Image.new("RGBA", (4, 3), (255, 255, 255, 255))
    via = {"1": "L", "La": "LA", "PA": "P", "RGBa": "RGBA"}.get(mode, mode)
    image = white.convert("RGB").convert(via) if via in ("CMYK", "HSV", "YCbCr", "RGBX") else white.convert(via)
    result = read_image(image.convert(mode))
    np.testing.assert_array_equal(result, np.full((3, 4, 3), 255, np.uint8))


def test_pil_image_with_alpha_loses_it_without_blending() -> None:
    image = PIL.Image.fromarray(np.concatenate([RGB, ALPHA], 2))
    np.testing.assert_array_equal(read_image(image), RGB)


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_pil_modes_of_unknown_range_are_refused(mode: str) -> None:
    with pytest.raises(InputError, match=rf"mode '{mode}', whose range is unknown: scale"):
        read_image(PIL.Image.new(mode, (4, 3)))


def test_pil_image_without_pixels() -> None:
    with pytest.raises(InputError, match="no pixels: its size is 0x3"):
        read_image(PIL.Image.new("RGB", (0, 3)))


def test_path_as_text_and_as_path(tmp_path: Path) -> None:
    PIL.Image.fromarray(RGB).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png"), "BGR"), RGB)


def test_exif_orientation_is_applied_to_files_only(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    PIL.Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(RGB, -1))
    with PIL.Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(read_image(image), RGB)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_truncated_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"a{suffix} is (truncated|not an image)"):
        read_image(path)


def test_truncated_pil_image(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:5000])
    with PIL.Image.open(tmp_path / "b.png") as image, pytest.raises(InputError, match="cannot be decoded"):
        read_image(image)


def test_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(InputError, match=r"a.png is not an image"):
        read_image(tmp_path / "a.png")


def test_sixteen_bit_file_is_refused_by_name(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.zeros((3, 3), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a.png has pixels of mode 'I;16'"):
        read_image(tmp_path / "a.png")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.png", tmp_path):
        with pytest.raises(InputError, match="there is no image file at"):
            read_image(path)


def test_image_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PIL.Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match=r"a.png is too large.*MAX_IMAGE_PIXELS"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("error", [RuntimeError, KeyError, MemoryError, NotImplementedError])
def test_whatever_pillow_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail(*_: object) -> None:
        raise error("odd")

    PIL.Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(PIL.Image, "open", fail)
    with pytest.raises(InputError, match=r"a.png is truncated, damaged or not readable .*odd"):
        read_image(tmp_path / "a.png")


def test_closed_pil_image(tmp_path: Path) -> None:
    PIL.Image.fromarray(RGB).save(tmp_path / "a.png")
    with PIL.Image.open(tmp_path / "a.png") as image:
        pass
    with pytest.raises(InputError, match="the PIL image cannot be decoded"):
        read_image(image)


def test_name_that_is_too_long() -> None:
    with pytest.raises(InputError, match=r"no image file at|File name too long"):
        read_image("x" * 300)
