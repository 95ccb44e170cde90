"""Painted or not is decided on the pixels, whatever the format."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from written_files import exif, png, saved, short, tiff

from samrt.errors import InputError
from samrt.images.painted import read_painted

H, W = 60, 90
STROKE = np.zeros((H, W), np.uint8)
cv2.circle(STROKE, (30, 28), 17, 1, -1)
cv2.line(STROKE, (60, 5), (80, 50), 1, 3)
MASK = STROKE.astype(bool)
WHITE = STROKE * 255


def image(array: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(array)


def coloured(red: int, green: int, blue: int) -> np.ndarray:
    return STROKE[..., None] * np.array([red, green, blue], np.uint8)


def palette() -> PIL.Image.Image:
    picture = PIL.Image.frombytes("P", (W, H), (1 - STROKE).tobytes())  # number 0 is the paint
    picture.putpalette([200, 0, 0, 0, 0, 0])
    return picture


EXACT = {
    "L": saved(image(WHITE), "PNG"),
    "1": saved(image(MASK), "PNG"),
    "L of 0 and 1": saved(image(STROKE), "PNG"),
    "L of 0 and 100": saved(image(STROKE * 100), "PNG"),
    "dark red": saved(image(coloured(90, 0, 0)), "PNG"),
    "palette": saved(palette(), "PNG"),
    "GIF": saved(image(WHITE), "GIF"),
    "16 bits": png(WHITE[..., None].astype(np.uint16) * 257, 0),
    "16 bits of 0 and 1": png(STROKE[..., None].astype(np.uint16), 0),
    "float": tiff(STROKE[..., None].astype(np.float32), 1),
    "white under alpha": saved(image(np.dstack([WHITE * 0 + 255] * 3 + [WHITE])), "PNG"),
    "opaque": saved(image(np.dstack([WHITE] * 3 + [WHITE * 0 + 255])), "PNG"),
    "LA": saved(image(np.dstack([WHITE * 0 + 255, WHITE])), "PNG"),
    "two bright colours": saved(
        image(coloured(255, 0, 0) + 140 * np.dstack([WHITE * 0, WHITE * 0, WHITE // 255])), "PNG"
    ),
}
LOSSY = [("JPEG", {"quality": 75}), ("JPEG", {"quality": 30}), ("WEBP", {"quality": 50}), ("AVIF", {}), ("MPO", {})]
LOSSY += [("TIFF", {"compression": "jpeg"}), ("JPEG2000", {"quality_layers": [20], "irreversible": True})]


@pytest.mark.parametrize("name", EXACT)
def test_masks_without_losses(name: str) -> None:
    np.testing.assert_array_equal(read_painted(EXACT[name]), MASK)


@pytest.mark.parametrize(("form", "options"), LOSSY)
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0), (60, 230, 10)])
def test_masks_with_losses(form: str, options: dict[str, Any], colour: tuple[int, int, int]) -> None:
    if form not in PIL.Image.SAVE:
        pytest.skip(f"{form} is not in this Pillow")
    found = read_painted(saved(image(coloured(*colour)), form, **options))
    # Only at the edge of the stroke.
    edge = cv2.dilate(STROKE, np.ones((5, 5))) - cv2.erode(STROKE, np.ones((5, 5)))
    assert not (found != MASK)[edge == 0].any()
    assert np.count_nonzero(found != MASK) <= 0.1 * np.count_nonzero(MASK)


def test_few_levels_that_losses_made() -> None:
    line = np.zeros((120, 160), np.uint8)
    line[50, 20:140] = 255
    file = saved(image(line).convert("RGB"), "WEBP", quality=30)
    levels = np.unique(np.asarray(PIL.Image.open(io.BytesIO(file))).max(axis=2))
    assert 2 < len(levels) <= 8
    np.testing.assert_array_equal(read_painted(file), line > 0)


@pytest.mark.parametrize("sigma", [1, 4, 9])
def test_soft_edges_are_cut_at_half(sigma: int) -> None:
    soft = cv2.GaussianBlur(cv2.resize(WHITE, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST), None, sigma)
    np.testing.assert_array_equal(read_painted(saved(image(soft), "PNG")), soft >= 128)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    file = saved(image(WHITE), form, exif=b"Exif\0\0" + exif(short(0x0112, orientation)))
    turned = np.rot90(MASK, {3: 2, 6: -1}[orientation])
    assert np.mean(read_painted(file) != turned) < 0.02


PHOTO = np.dstack([np.add.outer(np.arange(H), np.arange(W)) + 40] * 3).astype(np.uint8)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (STROKE + 2 * np.roll(STROKE, 20, 1), r"levels are 0, 1, 2, 3 of 255\); make it black, and the object white"),
        (STROKE + 255 * np.roll(STROKE, 45, 1), "levels are 0, 1, 255 of 255"),
        (STROKE * 100 + 155 * np.roll(STROKE, 45, 1), "levels are 0, 100, 155, 255 of 255"),
        (PHOTO, r"it is not clear what is painted in .*\d\d% of what is not black is neither dark nor bright"),
        (np.dstack([PHOTO, WHITE]), "it is not clear what is painted"),
        (np.dstack([WHITE] * 3) // 5 * 2 + PHOTO // 9, "it is not clear what is painted"),
        (PHOTO // 4, r"its levels are \d\d between 10 and \d\d of 255"),
    ],
)
def test_pictures_that_are_no_masks(picture: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_painted(saved(image(picture), "PNG"))


def test_picture_of_one_level() -> None:
    assert not read_painted(saved(image(WHITE * 0), "PNG")).any()
    assert read_painted(saved(image(WHITE * 0 + 255), "PNG")).all()
