"""Where an evaluation clicks: the prompts of the SAM paper, made from the truth.

arXiv:2304.02643, appendix D.1 ("Point sampling"): the first point lies where the mask's interior distance transform is
largest, each next one where the error of the answer before is farthest from its own edge.

Coordinates are those of `Model.predict`: a point on the pixel in column c and row r is (c, r), an index, as users of
Meta's `SamPredictor` give it. It is scaled to the resized image, where the graph adds half a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from samrt.errors import InputError
from samrt.evaluation.truths import Box, Mask, Truth
from samrt.prompts import BACKGROUND, FOREGROUND

# How many points scores are reported for.
POINT_COUNTS = (1, 2, 3, 5, 9)
DEFAULT_PROMPTS = "box,points:5"

Point = tuple[int, int, int]  # x, y, label


@dataclass(frozen=True)
class PromptPlan:
    """Which prompts to evaluate: a box or not, and up to how many points (0: none)."""

    box: bool
    points: int

    @property
    def names(self) -> tuple[str, ...]:
        """What is reported: "box", "points:1", "points:2", ..."""
        counts = [f"points:{count}" for count in POINT_COUNTS if count <= self.points]
        return (*(["box"] if self.box else []), *counts)

    @property
    def shown(self) -> tuple[str, ...]:
        """Of those, the ones whose masks are kept and drawn: the box, one point, and the most points."""
        return tuple(name for name in self.names if name in ("box", "points:1", f"points:{self.points}"))


def parse_prompts(text: str) -> PromptPlan:
    """Read "box", "point", "points:N", or several separated by commas.

    Raises:
        InputError: it is none of these.
    """
    box, points = False, 0
    for word in text.split(","):
        kind, _, number = word.strip().partition(":")
        if (kind, number) == ("box", ""):
            box = True
        elif (kind, number) == ("point", ""):
            points = max(points, 1)
        elif kind == "points" and number in map(str, POINT_COUNTS):
            points = max(points, int(number))
        else:
            counts = ", ".join(map(str, POINT_COUNTS))
            raise InputError(f"{word!r} is no kind of prompt; give box, point, or points:N with N one of {counts}")
    return PromptPlan(box, points)


def prompt_box(truth: Truth) -> Box:
    """The instance's box as a prompt: x0, y0 of its first pixel and x1, y1 of its last.

    An instance one pixel wide or high has a box without area, which is no prompt: its last pixel moves by one.
    """
    x0, y0, x1, y1 = truth.box
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def first_point(truth: Truth) -> Point:
    """The foreground point that lies deepest in an instance."""
    x, y, _ = _deepest(truth.crop)
    return truth.x + x, truth.y + y, FOREGROUND


def next_point(truth: Mask, answer: Mask) -> Point | None:
    """The point that lies deepest in what the answer missed, or in what it should not hold; None if it is perfect.

    Args:
        truth: bool [H, W].
        answer: bool [H, W].
    """
    missed, extra = _deepest(truth & ~answer), _deepest(answer & ~truth)
    if max(missed[2], extra[2]) == 0:
        return None
    # At equal depth the object is told before what is beside it.
    if missed[2] >= extra[2]:
        return missed[0], missed[1], FOREGROUND
    return extra[0], extra[1], BACKGROUND


def _deepest(region: Mask) -> tuple[int, int, float]:
    """x, y of the pixel farthest from the edge of a region, bool [H, W], and that distance; 0 for an empty region.

    The image's border is an edge. Of equal pixels it is the first, row by row.
    """
    x, y, width, height = cv2.boundingRect(region.view(np.uint8))
    if width == 0:
        return 0, 0, 0.0
    # All is zero beyond the box, so that one pixel around it is as good as the whole image.
    framed = np.pad(region[y : y + height, x : x + width], 1).astype(np.uint8)
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return x + int(column) - 1, y + int(row) - 1, float(depth[row, column])
