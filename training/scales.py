"""Photographs at other scales: enlarged around one small object, or four of them reduced into one image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""An image, uint8 [H, W, 3], and its ids, uint8 [H, W], 0 unlabelled."""

_SMALLEST_WINDOW = 64  # pixels of the photograph: a smaller window is only blur when enlarged
_MOST_IDS = 60  # of each of four pictures, as one byte has to tell them apart


def around_an_object(rng: np.random.Generator, image: NDArray[np.uint8], ids: NDArray[np.uint8]) -> Labelled:
    """A part of the picture, 1.3 to 4 times as large as one of its objects, which lies anywhere in it."""
    labels = np.unique(ids)
    labels = labels[labels > 0]
    if not labels.size:
        return image, ids
    x, y, width, height = cv2.boundingRect((ids == rng.choice(labels)).astype(np.uint8))
    side = max(_SMALLEST_WINDOW, round(max(width, height) * float(np.exp(rng.uniform(np.log(1.3), np.log(4))))))
    rows, columns = (_around(rng, *span, side) for span in ((y, height, ids.shape[0]), (x, width, ids.shape[1])))
    return image[rows, columns], ids[rows, columns]


def _around(rng: np.random.Generator, start: int, length: int, available: int, side: int) -> slice:
    side = min(side, available)
    low, high = max(0, start + length - side), min(start, available - side)
    first = int(rng.integers(min(low, high), max(low, high) + 1))
    return slice(first, first + side)


def four_in_one(rng: np.random.Generator, pictures: Sequence[Labelled], side: int) -> Labelled:
    """Four pictures that share a square of `side` pixels, each filling its part of it."""
    image, ids = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.uint8)
    cut = [int(side * rng.uniform(0.35, 0.65)) for _ in range(2)]
    halves = [(slice(0, at), slice(at, side)) for at in cut]
    parts = [(rows, columns) for rows in halves[0] for columns in halves[1]]
    for number, ((rows, columns), picture) in enumerate(zip(parts, pictures, strict=True)):
        pixels, labels = _filling(rng, *picture, rows.stop - rows.start, columns.stop - columns.start)
        image[rows, columns] = pixels
        ids[rows, columns] = _numbered(labels, first=1 + number * _MOST_IDS)
    return image, ids


def _filling(
    rng: np.random.Generator, pixels: NDArray[np.uint8], labels: NDArray[np.uint8], height: int, width: int
) -> Labelled:
    """Cut to the part's shape and resized."""
    scale = min(labels.shape[0] / height, labels.shape[1] / width)
    rows, columns = (
        _anywhere(rng, available, max(1, int(scale * wanted)))
        for available, wanted in zip(labels.shape, (height, width), strict=True)
    )
    size = (width, height)
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    return (
        cv2.resize(pixels[rows, columns], size, interpolation=method),  # type: ignore[return-value]
        cv2.resize(labels[rows, columns], size, interpolation=cv2.INTER_NEAREST_EXACT),
    )


def _anywhere(rng: np.random.Generator, available: int, length: int) -> slice:
    first = int(rng.integers(max(1, available - length + 1)))
    return slice(first, first + length)


def _numbered(labels: NDArray[np.uint8], first: int) -> NDArray[np.uint8]:
    """The largest of its objects as `first`, `first` + 1, ..."""
    counts = np.bincount(labels.ravel(), minlength=256)
    counts[0] = 0
    table = np.zeros(256, np.uint8)
    order = [int(label) for label in np.argsort(-counts, kind="stable")[:_MOST_IDS] if counts[label]]
    table[order] = np.arange(first, first + len(order))
    return table[labels]
