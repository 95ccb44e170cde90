"""COCO's ways to write a mask: polygons, lists of run lengths and compressed run lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from samrt.bundle.contract import Size
from samrt.bundle.json_reader import is_number
from samrt.errors import InputError
from samrt.evaluation.reading import check_size
from samrt.evaluation.truths import Mask
from samrt.rle import decode

_REMEDY = "download the annotations again"
# pycocotools holds coordinates in 32 bits, five times as fine, and crashes beyond: far from any picture.
_FARTHEST = 2**20
# It keeps some 80 bytes for each pixel that an outline passes, and crashes where it gets none. No outline of a picture
# of 2^28 pixels that winds less than through every 64th of them is longer, and none that winds through each of a small
# one's, or passes beside what was cut out of a larger one.
_LONGEST, _LONGEST_BESIDE = 2**22, 2**14


class UnusableAnnotationError(InputError):
    """One annotation's mask cannot be read; the others of its file can."""


def has_segmentation(segmentation: Any) -> bool:
    """Whether there is a mask at all: many tools write an empty one for an annotation that is a box only."""
    if isinstance(segmentation, list):
        return any(has_segmentation(each) if isinstance(each, list | dict) else True for each in segmentation)
    return segmentation is not None and segmentation not in ({}, "")


def segmentation_mask(segmentation: Any, size: Size, what: str) -> Mask:
    """A mask as COCO writes it, as bool [H, W].

    Args:
        segmentation: a list of polygons, each x0, y0, x1, y1, ... in pixels, or one such polygon; or
            `{"size": [H, W], "counts": ...}` with counts a list of run lengths or a compressed string, or a list of
            such objects.
        size: (H, W) of the image.
        what: the annotation, for errors.

    Raises:
        UnusableAnnotationError: it is none of these, or for an image of another size.
        InputError: it is polygons, and pycocotools, which draws them as COCO does, is not installed.
    """
    parts = segmentation if isinstance(segmentation, list) else [segmentation]
    if parts and all(isinstance(part, Mapping) for part in parts):
        try:
            whole = _decode_runs(parts[0], size)
            for part in parts[1:]:
                whole |= _decode_runs(part, size)
        except InputError as error:
            raise UnusableAnnotationError(f"{what}: {error}") from error
        return whole
    if not isinstance(segmentation, list):
        raise UnusableAnnotationError(
            f"the segmentation of {what} must be polygons or run lengths, not {str(segmentation)[:80]!r}; {_REMEDY}"
        )
    return _draw_polygons(segmentation, size, what)


def _decode_runs(segmentation: Mapping[str, Any], size: Size) -> Mask:
    """Lengths of alternating runs of 0 and 1 in column-major order, as a list or compressed."""
    found, runs = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(found, list) and len(found) == 2 and all(map(_is_count, found))):
        raise InputError(f"damaged run lengths: size must be [height, width] in pixels; {_REMEDY}")
    height, width = map(int, found)
    # Before any mask of that size is made: it may be larger than the memory.
    check_size("its mask", (height, width), size)
    if not isinstance(runs, list):
        return decode({"size": [height, width], "counts": runs})
    if not all(map(_is_count, runs)):
        raise InputError(f"damaged run lengths: counts must be whole numbers; {_REMEDY}")
    if sum(runs) != height * width:
        raise InputError(f"damaged run lengths: they do not fill {width}x{height} pixels (width x height); {_REMEDY}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, np.array(runs, np.int64))
    return np.ascontiguousarray(flat.reshape(width, height).T)


def _is_count(value: object) -> bool:
    """A whole number from 0 on, which some tools write as 160.0."""
    return is_number(value) and value >= 0 and value == int(value)


def _draw_polygons(polygons: list[Any], size: Size, what: str) -> Mask:
    try:
        from pycocotools import mask as pycocotools
    except ImportError as error:
        raise InputError(
            f"{what} is a polygon, and drawing it as COCO does needs pycocotools; run: pip install 'samrt[eval]'"
        ) from error
    if polygons and all(map(is_number, polygons)):
        polygons = [polygons]
    for polygon in polygons:
        fits = isinstance(polygon, list) and len(polygon) % 2 == 0
        if not fits or not all(is_number(n) and abs(n) <= _FARTHEST for n in polygon):
            raise UnusableAnnotationError(
                f"{what} has a polygon that is not x0, y0, x1, y1, x2, y2, ... in pixels; {_REMEDY}"
            )
    # Points and lines have no pixel. pycocotools would take four numbers for a box, whole ones even where all are:
    # thence the floats.
    areas = [[float(n) for n in polygon] for polygon in polygons if len(polygon) >= 6]
    if not areas:
        return np.zeros(size, np.bool_)
    length, most = sum(map(_length, areas)), min(_LONGEST, size[0] * size[1] + _LONGEST_BESIDE)
    if length > most:
        raise UnusableAnnotationError(
            f"{what} has outlines of {length:,.0f} pixels, and samrt draws {most:,} at most in an image of its size; "
            f"{_REMEDY}"
        )
    mask: Mask = pycocotools.decode(pycocotools.merge(pycocotools.frPyObjects(areas, *size))).astype(np.bool_)
    return mask


def _length(polygon: list[float]) -> float:
    """Of the closed outline, as pycocotools walks it: an edge takes the longer of its two sides."""
    points = np.array(polygon).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, -1, axis=0)).max(axis=1).sum())
