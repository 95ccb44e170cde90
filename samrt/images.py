"""Reading images of every kind into one: uint8 [H, W, 3] RGB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from samrt.errors import InputError

ImageSource = str | os.PathLike[str] | PIL.Image.Image | NDArray[Any]

IMAGE_FORMATS = ("RGB", "BGR", "RGBA", "BGRA", "GREY")

# Modes that convert to 8-bit RGB without choosing a range of values for the user.
_PIL_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


def read_image(source: ImageSource, image_format: str = "RGB") -> NDArray[np.uint8]:
    """Read an image.

    Args:
        source: a path (any format Pillow reads; the EXIF orientation is applied), a PIL image (taken as it is), or an
            array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], uint8 in 0..255 or floating in 0..1. Alpha is dropped.
        image_format: the order of an array's channels, one of "RGB", "BGR", "RGBA", "BGRA", "GREY"; an array with one
            channel is grey and one with four carries alpha also under "RGB" and "BGR". Paths and PIL images know
            their own.

    Returns:
        uint8 [H, W, 3] RGB, contiguous. It may share memory with `source`.

    Raises:
        InputError: the image cannot be used; the message says why and what to do.
    """
    if image_format not in IMAGE_FORMATS:
        raise InputError(f"image_format must be one of {', '.join(IMAGE_FORMATS)}, not {image_format!r}")
    if isinstance(source, np.ndarray):
        return _from_array(source, image_format)
    if isinstance(source, PIL.Image.Image):
        return _from_pil(source, "the PIL image")
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(source))
    raise InputError(f"an image must be a path, a PIL image or a numpy array, not {type(source).__name__}; convert it")


@contextmanager
def open_picture(path: Path) -> Iterator[PIL.Image.Image]:
    """Open a picture file with Pillow, and report whatever opening it or the block raises.

    Raises:
        InputError: there is no such file, or it cannot be read or decoded.
    """
    try:
        if not path.is_file():
            raise InputError(f"there is no image file at {path}; check the path")
        with PIL.Image.open(path) as image:
            yield image
    except InputError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that Pillow can read; convert it to PNG or JPEG") from error
    except PIL.Image.DecompressionBombError as error:
        raise InputError(
            f"{path} is too large ({error}); shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        ) from error
    except Exception as error:
        # Pillow's decoders raise anything for a damaged file, from OSError to KeyError and MemoryError.
        raise InputError(f"{path} is truncated, damaged or not readable ({error}); copy or save it again") from error


def _from_path(path: Path) -> NDArray[np.uint8]:
    with open_picture(path) as image:
        return _from_pil(PIL.ImageOps.exif_transpose(image), str(path))


def _from_pil(image: PIL.Image.Image, name: str) -> NDArray[np.uint8]:
    if 0 in image.size:
        raise InputError(f"{name} has no pixels: its size is {image.width}x{image.height}; give at least 1x1")
    if image.mode not in _PIL_MODES:
        raise InputError(
            f"{name} has pixels of mode {image.mode!r}, whose range is unknown: scale them to 0..255 yourself and "
            "pass a uint8 array"
        )
    try:
        # Pillow has no direct way from some modes with alpha (PA, La, RGBa) to RGB.
        if image.mode in ("La", "PA", "RGBa"):
            image = image.convert({"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}[image.mode])
        return np.ascontiguousarray(np.asarray(image.convert("RGB")))
    except Exception as error:
        # A PIL image may still be an open file that is damaged, or a closed one.
        raise InputError(f"{name} cannot be decoded ({error}); copy or save it again") from error


def _from_array(image: NDArray[Any], image_format: str) -> NDArray[np.uint8]:
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise InputError(
            f"an image array must be [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], not {list(image.shape)}; "
            "put the channels last and pass one image at a time"
        )
    if 0 in image.shape:
        raise InputError(f"the image has no pixels: its shape is {list(image.shape)}; give at least 1x1")
    channels = image.shape[2]
    wanted = {"RGB": (1, 3, 4), "BGR": (1, 3, 4), "RGBA": (4,), "BGRA": (4,), "GREY": (1,)}[image_format]
    if channels not in wanted:
        raise InputError(
            f"image_format {image_format} needs {' or '.join(map(str, wanted))} channels, the image has {channels}; "
            "name the format that it is in"
        )
    image = _to_uint8(image)
    if channels == 1:
        return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
    if image_format in ("BGR", "BGRA"):
        return np.ascontiguousarray(image[:, :, 2::-1])
    return np.ascontiguousarray(image[:, :, :3])


def _to_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise InputError(
            f"image arrays must be uint8 in 0..255 or floating in 0..1, not {image.dtype}; scale the values to 0..255 "
            "and convert with .astype(numpy.uint8)"
        )
    low, high = float(image.min()), float(image.max())
    if not np.isfinite(low + high):
        raise InputError("the image contains NaN or infinity; replace those pixels, e.g. with numpy.nan_to_num")
    if low < 0 or high > 1:
        raise InputError(
            f"a floating image must lie in 0..1, this one in {low:g}..{high:g}; divide by its range, or convert with "
            ".astype(numpy.uint8) if it is in 0..255"
        )
    scaled: NDArray[np.uint8] = np.rint(image * 255).astype(np.uint8)
    return scaled
