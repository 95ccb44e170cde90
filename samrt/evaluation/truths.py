"""What a data set is to the evaluation: images, and on each its annotated instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from samrt.bundle.contract import Size
from samrt.errors import InputError

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]
# Images with more instances are not known; pictures of other things, as of depth, have tens of thousands of values.
_MOST_IDS = 5000
# Pixels that the instances of one image are kept in, one byte each: far more than those of SA-1B's images. A few
# kilobytes can declare a thousand instances, each as large as the largest image.
_MOST_PIXELS = 2**31
# Of annotations that are left out for one reason, so many are named.
MOST_NAMED = 20


@dataclass(frozen=True, eq=False)
class Truth:
    """One instance as it was annotated. Only its part of the image is kept: an image may have hundreds.

    Attributes:
        name: tells it from the others of its image.
        size: (H, W) of the image.
        x: first column of the instance, in pixels of the image.
        y: first row.
        crop: bool [h, w], the mask from its first to its last row and column; never empty.
    """

    name: str
    size: Size
    x: int
    y: int
    crop: Mask

    @property
    def area(self) -> int:
        """Number of pixels, at least 1."""
        return int(np.count_nonzero(self.crop))

    @property
    def box(self) -> Box:
        """x0, y0, x1, y1: indices of the first and the last column and row, both included."""
        height, width = self.crop.shape
        return self.x, self.y, self.x + width - 1, self.y + height - 1

    def mask(self) -> Mask:
        """bool [H, W], a fresh array."""
        full = np.zeros(self.size, np.bool_)
        height, width = self.crop.shape
        full[self.y : self.y + height, self.x : self.x + width] = self.crop
        return full


@dataclass(eq=False)
class Truths:
    """All instances of one image, and by reason how many annotations were left out, and the first of each by name."""

    instances: list[Truth] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)
    _pixels: int = 0

    def add(self, truth: Truth) -> None:
        """Keep an instance.

        Raises:
            InputError: with it they would take more memory than any image's.
        """
        self._pixels += truth.crop.size
        if self._pixels > _MOST_PIXELS:
            raise InputError(
                f"the instances up to {truth.name} take more than {_MOST_PIXELS:,} pixels together, and samrt keeps so "
                "many of one image; leave some of them out"
            )
        self.instances.append(truth)

    def leave_out(self, reason: str, name: str) -> None:
        """Count an annotation that is not evaluated."""
        self.left_out[reason] += 1
        names = self.named.setdefault(reason, [])
        if len(names) < MOST_NAMED:
            names.append(name)


@dataclass(frozen=True, eq=False)
class Item:
    """One image of a data set.

    Attributes:
        name: tells it from the others of its data set.
        image: its file.
        read: reads the annotations, for an image of the size (H, W) that is passed; raises InputError.
        files: those that `read` opens, for telling whether a data set has changed.
    """

    name: str
    image: Path
    read: Callable[[Size], Truths]
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images with their annotations.

    Attributes:
        name: of its folder or its JSON file; no two data sets of one evaluation share it.
        items: the images, in a fixed order.
        index: the file that lists them.
        available: how many images there are without a limit.
        notes: lines about what was not taken as its list says.
        left_out: annotations that belong to no image, by reason; their names.
    """

    name: str
    items: tuple[Item, ...]
    index: Path
    available: int
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, list[str]] = field(default_factory=dict)


def cut_out(name: str, mask: Mask) -> Truth | None:
    """The instance in a mask, bool [H, W]; None where the mask is empty."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return None
    return Truth(name, (mask.shape[0], mask.shape[1]), x, y, mask[y : y + height, x : x + width].copy())


def instances_of(ids: NDArray[np.integer], prefix: str) -> Iterator[Truth]:
    """Every id of a map, integers [H, W], except 0, which is unlabelled.

    Raises:
        InputError: it has so many ids that it is no map.
    """
    numbers = np.unique(ids)
    if len(numbers) > _MOST_IDS:
        raise InputError(
            f"{prefix} has {len(numbers)} different values, and a map of instance ids has {_MOST_IDS} at most; "
            "name the map, not a picture of something else"
        )
    for number in numbers:
        truth = cut_out(f"{prefix}#{number}", ids == number) if number != 0 else None
        if truth is not None:
            yield truth
