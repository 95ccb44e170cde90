"""COCO's two kinds of JSON: instances (polygons and run lengths) and panoptic (PNGs of segment ids).

The formats are those of cocodataset.org/#format-data. Crowd regions (`iscrowd`) mark many objects as one and are left
out, as in COCO's own evaluation of single masks.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from samrt.bundle.contract import Size
from samrt.bundle.json_reader import JsonReader
from samrt.errors import InputError, Remedy
from samrt.evaluation.coco_masks import UnusableAnnotationError, has_segmentation, segmentation_mask
from samrt.evaluation.coco_pictures import (
    Picture,
    files_of,
    find_folder,
    id_of,
    name_inside,
    outside_note,
    read_pictures,
)
from samrt.evaluation.reading import as_input_errors, read_json, read_panoptic_map
from samrt.evaluation.truths import DataSet, Item, Truths, cut_out

CROWD, EMPTY = "crowd regions", "annotations without a pixel"
BOX_ONLY, DAMAGED = "annotations without a segmentation", "annotations with a damaged segmentation"
STRAY = "annotations of an image that is not listed"
_REMEDY = "download the annotations again"
# COCO's own largest list, of train2017, has 450 MB and takes 2.7 GB of memory; LVIS's has over twice as many bytes.
_LARGEST_LIST = 2**31
_YES = re.compile(r"1(\.0*)?|true|yes", re.IGNORECASE)


def open_coco(path: Path, images: Path | None = None, masks: Path | None = None) -> DataSet:
    """The data set in a JSON file; `images` and `masks` as in `open_data_sets`.

    Raises:
        InputError: the file is not COCO's, contradicts itself, or its pictures are not found.
    """
    reader = read_json(path, _REMEDY, _LARGEST_LIST)
    with as_input_errors():
        if not {"images", "annotations"} <= set(reader.names()):
            raise InputError(f'{path} is not a COCO file: it lacks "images" and "annotations"; name one that has both')
        pictures, notes = read_pictures(reader, path)
        annotations = reader.list_of_children("annotations")
        panoptic = any("segments_info" in annotation.names() for annotation in annotations)
        if masks is not None and not panoptic:
            raise InputError(f"{path} is not a panoptic file, and only those have masks", Remedy("leave {masks} out"))
        by_image: dict[str, list[JsonReader]] = defaultdict(list)
        strays, maps_written = [], []
        for annotation in annotations:
            key = id_of(annotation, "image_id")
            by_image[key].append(annotation)
            if key not in pictures:
                strays.append(f"{_name(annotation, len(by_image[key]))} of image {key}")
            if panoptic:
                maps_written.append(annotation.text("file_name"))
        notes += outside_note("masks", maps_written)
        files = files_of(images or find_folder(path, pictures), pictures)
        maps = masks or path.with_suffix("")
        items = tuple(
            _panoptic_item(picture, files[key], maps, by_image[key])
            if panoptic
            else _instances_item(picture, files[key], by_image[key])
            for key, picture in pictures.items()
        )
    return DataSet(path.stem, items, path, len(items), notes, {STRAY: strays} if strays else {})


def _instances_item(picture: Picture, image: Path, annotations: list[JsonReader]) -> Item:
    def read(size: Size) -> Truths:
        picture.check(image, size)
        found = Truths()
        for number, annotation in enumerate(annotations, start=1):
            name = _name(annotation, number)
            if _is_crowd(annotation):
                found.leave_out(CROWD, f"{name} of {picture.name}")
                continue
            segmentation = annotation.raw("segmentation") if "segmentation" in annotation.names() else None
            if not has_segmentation(segmentation):
                found.leave_out(BOX_ONLY, f"{name} of {picture.name}")
                continue
            try:
                truth = cut_out(name, segmentation_mask(segmentation, size, f"annotation {name}"))
            except UnusableAnnotationError as error:
                found.leave_out(DAMAGED, f"{name} of {picture.name}: {error.facts}")
                continue
            if truth is None:
                found.leave_out(EMPTY, f"{name} of {picture.name}")
            else:
                found.add(truth)
        return found

    return Item(picture.name, image, _checked(read))


def _panoptic_item(picture: Picture, image: Path, maps: Path, annotations: list[JsonReader]) -> Item:
    names = [name_inside(annotation.text("file_name")) for annotation in annotations]
    files = tuple(maps / name for name in names)

    def read(size: Size) -> Truths:
        picture.check(image, size)
        found = Truths()
        for annotation, name, file in zip(annotations, names, files, strict=True):
            ids = read_panoptic_map(file, size)
            for segment in annotation.list_of_children("segments_info"):
                if _is_crowd(segment):
                    found.leave_out(CROWD, f"{name}#{segment.raw('id')}")
                    continue
                # 0 is what is unlabelled.
                number = segment.size("id")
                truth = cut_out(f"{name}#{number}", ids == number)
                if truth is None:
                    raise InputError(f"{file} has no pixel of its segment {number}; {_REMEDY}")
                found.add(truth)
        return found

    return Item(picture.name, image, _checked(read), files)


def _checked(read: Callable[[Size], Truths]) -> Callable[[Size], Truths]:
    def reading(size: Size) -> Truths:
        with as_input_errors():
            return read(size)

    return reading


def _is_crowd(reader: JsonReader) -> bool:
    return "iscrowd" in reader.names() and _YES.fullmatch(str(reader.raw("iscrowd"))) is not None


def _name(annotation: JsonReader, number: int) -> str:
    """Its id; without one, its place among the annotations of its image."""
    value: Any = annotation.raw("id") if "id" in annotation.names() else None
    return f"number {number}" if value is None else str(value)
