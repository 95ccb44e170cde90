"""Reading the files of a data set: JSON, sizes of images, maps of ids."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.bundle.contract import Size
from samrt.bundle.json_reader import JsonReader
from samrt.errors import BundleError, InputError
from samrt.files import read_regular
from samrt.images.orientation import turned
from samrt.images.picture import Picture, open_picture

_ID_KINDS = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L")


def read_json(path: Path, remedy: str, limit: int) -> JsonReader:
    """A file's JSON object.

    Args:
        path: the file.
        remedy: what to do about one that is damaged.
        limit: the most bytes that such a file has. Python's objects take up to twenty times as many.

    Raises:
        InputError: there is no such file, it is larger, or it is not valid JSON.
    """
    try:
        # Editors on Windows put a byte order mark first.
        data = json.loads(read_regular(path, limit).decode("utf-8-sig"))
    except OSError as error:
        advice = "split it" if error.errno == errno.EFBIG else "check the path and its permissions"
        raise InputError(f"cannot read {path}: {error.strerror}; {advice}") from error
    except MemoryError as error:
        raise InputError(f"not enough memory to read {path}; split it, or raise this process's limit") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8, as JSON is; name another, or {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); {remedy}") from error
    with as_input_errors():
        return JsonReader(data, str(path), remedy)


@contextmanager
def as_input_errors() -> Iterator[None]:
    """`JsonReader` knows bundles' errors; a data set is input. JSON may be nested to any depth."""
    try:
        yield
    except BundleError as error:
        raise InputError(error.facts, error.remedy) from error
    except RecursionError as error:
        raise InputError("the data set's JSON is nested deeper than any annotation; make it anew") from error


@dataclass(frozen=True)
class Frame:
    """(H, W) of an image as it is read, and whether its EXIF orientation has turned or mirrored it for that."""

    size: Size
    turned: bool


def read_frame(path: Path) -> Frame:
    """The frame that `read_image` will give, without decoding more than the format asks for.

    A PNG may say after its pixels how it is to be turned, so it is decoded; a JPEG's header is enough.

    Raises:
        InputError: there is no such file, or it is not a picture.
    """
    with open_picture(path) as picture:
        return Frame(picture.size, picture.orientation != 1)


def read_id_map(path: Path, size: Size) -> NDArray[np.integer]:
    """A picture whose pixels are instance ids: integers [H, W] of one channel, 0 unlabelled.

    Raises:
        InputError: it cannot be read, is of a format with losses, has several channels, or another size than the image,
            which is (H, W).
    """
    with open_picture(path) as picture:
        _check_map(path, picture, size)
        if picture.kind not in _ID_KINDS:
            raise InputError(
                f"{path} has pixels of the kind {picture.kind!r}; a map of instance ids has one channel of 8 or 16 "
                "bits: save it as a grey PNG"
            )
        # A palette's indices are the ids; its colours only show them.
        ids = _as_seen(picture)
    return ids.astype(np.uint8) if ids.dtype == np.bool_ else ids


def read_panoptic_map(path: Path, size: Size) -> NDArray[np.int32]:
    """COCO's panoptic PNG: ids R + 256 G + 65536 B as int32 [H, W], 0 unlabelled (panopticapi's `rgb2id`).

    Raises:
        InputError: as `read_id_map`.
    """
    with open_picture(path) as picture:
        _check_map(path, picture, size)
        if picture.kind != "RGB":
            raise InputError(
                f"{path} has pixels of the kind {picture.kind!r}; a panoptic map is RGB: download it again"
            )
        colours = _as_seen(picture)
    # In place: a large picture would need several more copies of itself.
    ids = colours[..., 2].astype(np.int32)
    for channel in (1, 0):
        ids *= 256
        ids += colours[..., channel]
    return ids


def check_size(what: object, found: Size, size: Size) -> None:
    """Raises InputError where an annotation, `found` (H, W), has another size than its image."""
    if found != size:
        remedy = "annotations are never resized: give both at one size"
        if found == (size[1], size[0]):
            remedy = "images are rotated by their EXIF orientation: rotate the annotations of such an image too"
        raise InputError(
            f"{what} is {found[1]}x{found[0]} and its image {size[1]}x{size[0]} (width x height); {remedy}"
        )


def _as_seen(picture: Picture) -> NDArray[Any]:
    """The values of a map, turned by its own EXIF orientation, as images are."""
    # Loaded first: Pillow turns TIFFs itself.
    values = np.asarray(picture.load())
    return np.ascontiguousarray(turned(values, picture.orientation))


def _check_map(path: Path, picture: Picture, size: Size) -> None:
    """Before it is decoded: it may be far larger than its image."""
    # An id that is off by one is another instance.
    if not picture.lossless:
        form = "JPEG or WebP in a TIFF" if picture.image.format == "TIFF" else picture.image.format
        raise InputError(
            f"{path} is a {form} file, which does not keep ids as they were, or may not; make the map anew, as a PNG"
        )
    check_size(path, picture.size, size)
