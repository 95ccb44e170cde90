"""What masks score that see no image: the least that a model has to beat."""

from __future__ import annotations

import math

import numpy as np

from samrt.bundle.contract import Size
from samrt.evaluation.protocol import Point
from samrt.evaluation.truths import Box, Mask, Truth

# Which baselines stand beside a kind of prompt.
OF_BOX, OF_POINTS = ("filled box", "ellipse"), ("disc",)


def baselines_of(prompt: str) -> tuple[str, ...]:
    """The baselines beside the prompt "box" or "points:N"."""
    return OF_BOX if prompt == "box" else OF_POINTS


def filled_box(box: Box, size: Size) -> Mask:
    """bool [H, W], true from x0, y0 to x1, y1, both included."""
    x0, y0, x1, y1 = box
    mask = np.zeros(size, np.bool_)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def ellipse(box: Box, size: Size) -> Mask:
    """bool [H, W], the pixels whose centres lie in the ellipse that touches the box's outer edges."""
    x0, y0, x1, y1 = box
    mask = np.zeros(size, np.bool_)
    y, x = np.ogrid[y0 : y1 + 1, x0 : x1 + 1]
    across, down = (x - (x0 + x1) / 2) / ((x1 - x0 + 1) / 2), (y - (y0 + y1) / 2) / ((y1 - y0 + 1) / 2)
    mask[y0 : y1 + 1, x0 : x1 + 1] = across**2 + down**2 <= 1
    return mask


def disc(point: Point, radius: float, size: Size) -> Mask:
    """bool [H, W], the pixels whose centres are at most `radius` from the point's, cut off at the image's border."""
    y, x = np.ogrid[: size[0], : size[1]]
    mask: Mask = (x - point[0]) ** 2 + (y - point[1]) ** 2 <= radius**2
    return mask


def disc_radius(median_area: float) -> float:
    """Radius in pixels of the disc with the data set's median area, so that it knows the data set, not the instance."""
    return math.sqrt(median_area / math.pi)


def baseline_masks(truth: Truth, box: bool, point: Point | None, radius: float) -> dict[str, Mask]:
    """The baselines of one instance: those of its box, and those of its first point."""
    masks: dict[str, Mask] = {}
    if box:
        masks |= dict(zip(OF_BOX, (filled_box(truth.box, truth.size), ellipse(truth.box, truth.size)), strict=True))
    if point is not None:
        masks |= dict(zip(OF_POINTS, (disc(point, radius, truth.size),), strict=True))
    return masks
