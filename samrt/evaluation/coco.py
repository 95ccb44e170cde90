"""COCO's two kinds of JSON: instances (polygons and run lengths) and panoptic (PNGs of segment ids).

The formats are those of cocodataset.org/#format-data. Crowd regions (`iscrowd`) mark many objects as one and are left
out, as in COCO's own evaluation of single masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samrt.bundle.contract import Size
from samrt.bundle.json_reader import JsonReader, is_number
from samrt.errors import InputError, Remedy
from samrt.evaluation.reading import as_input_errors, check_size, read_json, read_panoptic_map
from samrt.evaluation.truths import DataSet, Item, Mask, Truths, cut_out
from samrt.rle import decode

CROWD, EMPTY = "crowd regions", "annotations without a pixel"
_REMEDY = "download the annotations again"
# pycocotools holds coordinates in 32 bits, five times as fine, and crashes beyond: far from any picture.
_FARTHEST = 2**20


def open_coco(path: Path, images: Path | None = None, masks: Path | None = None) -> DataSet:
    """The data set in a JSON file; `images` and `masks` as in `open_data_sets`.

    Raises:
        InputError: the file is not COCO's, contradicts itself, or its pictures are not found.
    """
    reader = read_json(path, _REMEDY)
    with as_input_errors():
        if not {"images", "annotations"} <= set(reader.names()):
            raise InputError(f'{path} is not a COCO file: it lacks "images" and "annotations"; name one that has both')
        pictures = _pictures(reader, path)
        annotations = reader.list_of_children("annotations")
        panoptic = bool(annotations) and "segments_info" in annotations[0].names()
        if masks is not None and not panoptic:
            raise InputError(f"{path} is not a panoptic file, and only those have masks", Remedy("leave {masks} out"))
        by_image: dict[int | str, list[JsonReader]] = {key: [] for key in pictures}
        for annotation in annotations:
            key = _image_id(annotation, "image_id")
            if key not in by_image:
                raise InputError(f"{path} has an annotation of image {key!r}, which it does not list; {_REMEDY}")
            by_image[key].append(annotation)
        folder = images or _find_images(path, next(iter(pictures.values()), None))
        maps = masks or path.with_suffix("")
        items = tuple(
            _panoptic_item(picture, folder, maps, by_image[key])
            if panoptic
            else _instances_item(picture, folder, by_image[key])
            for key, picture in pictures.items()
        )
    return DataSet(path.stem, items, path, len(items))


@dataclass(frozen=True)
class _Picture:
    """An image as the file lists it; its size there, where it is given."""

    name: str
    width: int | None
    height: int | None

    def check(self, path: Path, size: Size) -> None:
        if self.height is not None and self.width is not None:
            check_size(f"{path} in its list", (self.height, self.width), size)


def _pictures(reader: JsonReader, path: Path) -> dict[int | str, _Picture]:
    pictures: dict[int | str, _Picture] = {}
    for each in reader.list_of_children("images"):
        sides = [each.size(side) if side in each.names() else None for side in ("width", "height")]
        key = _image_id(each, "id")
        if key in pictures:
            raise InputError(f"{path} lists two images with the id {key!r}; {_REMEDY}")
        pictures[key] = _Picture(each.text("file_name"), *sides)
    return pictures


def _image_id(reader: JsonReader, key: str) -> int | str:
    value = reader.raw(key)
    if not isinstance(value, int | str):
        raise InputError(f"{key!r} of {reader.where} must be a number or text, not {value!r}; {_REMEDY}")
    return value


def _find_images(path: Path, first: _Picture | None) -> Path:
    """The folder of the pictures: beside the JSON, or where COCO's archives unpack to (`../val2017`)."""
    split = path.stem.rpartition("_")[2]
    folders = [path.parent, path.parent / "images", path.parent / split, path.parent.parent / split]
    for folder in folders:
        if first is not None and (folder / first.name).is_file():
            return folder
    if first is None:
        return path.parent
    looked = ", ".join(str(folder) for folder in dict.fromkeys(folders))
    raise InputError(
        f"the picture {first.name} of {path} is in none of {looked}", Remedy("name the folder that it is in ({images})")
    )


def _instances_item(picture: _Picture, folder: Path, annotations: list[JsonReader]) -> Item:
    image = folder / picture.name

    def read(size: Size) -> Truths:
        picture.check(image, size)
        found = Truths([])
        for annotation in annotations:
            if _is_crowd(annotation):
                found.left_out[CROWD] += 1
                continue
            name = str(annotation.raw("id"))
            truth = cut_out(name, segmentation_mask(annotation.raw("segmentation"), size, f"annotation {name}"))
            if truth is None:
                found.left_out[EMPTY] += 1
            else:
                found.instances.append(truth)
        return found

    return Item(picture.name, image, _checked(read))


def _panoptic_item(picture: _Picture, folder: Path, maps: Path, annotations: list[JsonReader]) -> Item:
    image = folder / picture.name
    names = [annotation.text("file_name") for annotation in annotations]
    files = tuple(maps / name for name in names)

    def read(size: Size) -> Truths:
        picture.check(image, size)
        found = Truths([])
        for annotation, name, file in zip(annotations, names, files, strict=True):
            ids = read_panoptic_map(file, size)
            for segment in annotation.list_of_children("segments_info"):
                if _is_crowd(segment):
                    found.left_out[CROWD] += 1
                    continue
                # 0 is what is unlabelled.
                number = segment.size("id")
                truth = cut_out(f"{name}#{number}", ids == number)
                if truth is None:
                    raise InputError(f"{file} has no pixel of its segment {number}; {_REMEDY}")
                found.instances.append(truth)
        return found

    return Item(picture.name, image, _checked(read), files)


def _checked(read: Callable[[Size], Truths]) -> Callable[[Size], Truths]:
    def reading(size: Size) -> Truths:
        with as_input_errors():
            return read(size)

    return reading


def _is_crowd(reader: JsonReader) -> bool:
    return "iscrowd" in reader.names() and bool(reader.raw("iscrowd"))


def segmentation_mask(segmentation: Any, size: Size, what: str) -> Mask:
    """COCO's three ways to write a mask, as bool [H, W].

    Args:
        segmentation: a list of polygons, each x0, y0, x1, y1, ... in pixels; or `{"size": [H, W], "counts": ...}` with
            counts a list of run lengths or a compressed string.
        size: (H, W) of the image.
        what: the annotation, for errors.

    Raises:
        InputError: it is none of these, or for an image of another size; or it is polygons, and pycocotools, which
            draws them as COCO does, is not installed.
    """
    if isinstance(segmentation, Mapping):
        try:
            return _decode_runs(segmentation, size)
        except InputError as error:
            raise InputError(f"{what}: {error}") from error
    if not isinstance(segmentation, list):
        raise InputError(f"the segmentation of {what} must be polygons or run lengths, not {segmentation!r}; {_REMEDY}")
    return _draw_polygons(segmentation, size, what)


def _decode_runs(segmentation: Mapping[str, Any], size: Size) -> Mask:
    """Lengths of alternating runs of 0 and 1 in column-major order, as a list or compressed."""
    found, runs = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(found, list) and len(found) == 2 and all(_is_count(n) for n in found)):
        raise InputError(f"damaged run lengths: size must be [height, width] in pixels; {_REMEDY}")
    # Before any mask of that size is made: it may be larger than the memory.
    check_size("its mask", (found[0], found[1]), size)
    if not isinstance(runs, list):
        return decode(segmentation)
    if not all(_is_count(n) for n in runs):
        raise InputError(f"damaged run lengths: counts must be whole numbers; {_REMEDY}")
    height, width = size
    if sum(runs) != height * width:
        raise InputError(f"damaged run lengths: they do not fill {width}x{height} pixels (width x height); {_REMEDY}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _draw_polygons(polygons: list[Any], size: Size, what: str) -> Mask:
    try:
        from pycocotools import mask as pycocotools
    except ImportError as error:
        raise InputError(
            f"{what} is a polygon, and drawing it as COCO does needs pycocotools; run: pip install 'samrt[eval]'"
        ) from error
    for polygon in polygons:
        fits = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
        if not fits or not all(is_number(n) and abs(n) <= _FARTHEST for n in polygon):
            raise InputError(f"{what} has a polygon that is not x0, y0, x1, y1, x2, y2, ... in pixels; {_REMEDY}")
    if not polygons:
        return np.zeros(size, np.bool_)
    # Floats, because pycocotools takes four whole numbers for a box.
    rles = pycocotools.frPyObjects([[float(n) for n in polygon] for polygon in polygons], *size)
    mask: Mask = pycocotools.decode(pycocotools.merge(rles)).astype(np.bool_)
    return mask
