"""Reading images of every kind into one: uint8 [H, W, 3] RGB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from samrt.errors import InputError
from samrt.images.kinds import check_unit, rgb_into, unit_to_uint8
from samrt.images.orientation import Box, as_stored, stored_box
from samrt.images.picture import PIL_IMAGE, Picture, given, open_picture, reporting
from samrt.images.sources import FileSource, is_file_source

ImageSource = FileSource | PIL.Image.Image | NDArray[Any]

IMAGE_FORMATS = ("RGB", "BGR", "RGBA", "BGRA", "GREY")


def read_image(source: ImageSource, image_format: str = "RGB") -> NDArray[np.uint8]:
    """Read an image. docs/images.md has what becomes of each kind.

    Args:
        source: a path; the bytes of an image file, or a file opened in binary mode, which is read from its beginning
            and stays open (the EXIF orientation is applied to all of these); a PIL image (taken as it is); or an array
            [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], uint8 in 0..255 or floating in 0..1. Alpha is ignored.
        image_format: the order of an array's channels, one of "RGB", "BGR", "RGBA", "BGRA", "GREY"; an array with one
            channel is grey and one with four carries alpha also under "RGB" and "BGR". Files and PIL images know
            their own.

    Returns:
        uint8 [H, W, 3] RGB, contiguous. It may share memory with an array.

    Raises:
        InputError: the image cannot be used; the message says why and what to do.
    """
    return read_part(source, image_format, lambda size: (0, 0, size[1], size[0]))[0]


def read_part(
    source: ImageSource, image_format: str, choose: Callable[[tuple[int, int]], Box]
) -> tuple[NDArray[np.uint8], tuple[int, int], Box]:
    """Read a part of an image; only that part is converted, and of an array only that part is looked at.

    Args:
        source: as in `read_image`.
        image_format: as in `read_image`.
        choose: the part x0, y0, x1, y1, in pixels of an image of the size (H, W) that it is given.

    Returns:
        The part, as `read_image` returns an image; the size (H, W) of the whole; and the part that was chosen.

    Raises:
        InputError: as `read_image`, or what `choose` raises.
    """
    if not isinstance(image_format, str) or image_format not in IMAGE_FORMATS:
        raise InputError(f"image_format must be one of {', '.join(IMAGE_FORMATS)}, not {image_format!r}")
    if isinstance(source, np.ndarray):
        image = _checked(source, image_format)
        size = (image.shape[0], image.shape[1])
        x0, y0, x1, y1 = box = choose(size)
        with reporting("the image array"):
            return _from_array(image[y0:y1, x0:x1], image_format), size, box
    if isinstance(source, PIL.Image.Image):
        with reporting(PIL_IMAGE):
            return _from_picture(given(source), choose)
    if is_file_source(source):
        with open_picture(source) as picture:
            return _from_picture(picture, choose)
    raise InputError(
        "an image must be a path, the bytes of an image file, a file opened in binary mode, a PIL image or a numpy "
        f"array, not {type(source).__name__}; convert it"
    )


def _from_picture(
    picture: Picture, choose: Callable[[tuple[int, int]], Box]
) -> tuple[NDArray[np.uint8], tuple[int, int], Box]:
    if 0 in picture.image.size:
        width, height = picture.image.size
        raise InputError(f"{picture.name} has no pixels: its size is {width}x{height}; give at least 1x1")
    picture.load()
    # After loading: Pillow turns TIFFs itself.
    size, orientation = picture.size, picture.orientation
    x0, y0, x1, y1 = box = choose(size)
    result = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
    rgb_into(as_stored(result, orientation), picture, stored_box(box, size, orientation))
    return result, size, box


def _checked(image: NDArray[Any], image_format: str) -> NDArray[Any]:
    """An array with its axis of channels."""
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
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        remedy = "scale the values to 0..255 and convert with .astype(numpy.uint8)"
        if image.dtype == np.uint16:
            remedy = "divide by the largest value that it can have, 65535 for 16 bits and 4095 for 12: image / 4095"
        raise InputError(f"image arrays must be uint8 in 0..255 or floating in 0..1, not {image.dtype}; {remedy}")
    return image


def _from_array(image: NDArray[Any], image_format: str) -> NDArray[np.uint8]:
    # Alpha is not looked at.
    image = image[:, :, 2::-1] if image_format in ("BGR", "BGRA") and image.shape[2] > 1 else image[:, :, :3]
    if image.dtype != np.uint8:
        check_unit("the array", float(image.min()), float(image.max()))
        result = np.empty((*image.shape[:2], 3), np.uint8)
        rows = max(1, 2**22 // image.shape[1])
        for top in range(0, len(image), rows):
            result[top : top + rows] = unit_to_uint8(image[top : top + rows])
        return result
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
