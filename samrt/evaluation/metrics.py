"""How well a mask fits the truth: IoU, boundary IoU, and how well a model knows it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from samrt.bundle.contract import Size
from samrt.evaluation.truths import Mask, Truth

# Of the image's diagonal; the ratio of the paper and of its reference code.
BOUNDARY_RATIO = 0.02


def iou(mask: Mask, truth: Truth) -> float:
    """Intersection over union of a mask, bool [H, W], with an instance; 0 for an empty mask."""
    height, width = truth.crop.shape
    part = mask[truth.y : truth.y + height, truth.x : truth.x + width]
    intersection = int(np.count_nonzero(part & truth.crop))
    return intersection / (int(np.count_nonzero(mask)) + truth.area - intersection)


def boundary_iou(mask: Mask, truth: Truth) -> float:
    """Boundary IoU (arXiv:2103.16562) of a mask, bool [H, W], with an instance.

    IoU of the two boundaries: the pixels of a mask at most d from its edge, d being 2 % of the image's diagonal, at
    least 1 pixel. The image's border is an edge.
    """
    full = truth.mask()
    x, y, width, height = cv2.boundingRect((mask | full).view(np.uint8))
    window = slice(y, y + height), slice(x, x + width)
    distance = boundary_width((mask.shape[0], mask.shape[1]))
    ours, theirs = boundary(mask[window], distance), boundary(full[window], distance)
    return int(np.count_nonzero(ours & theirs)) / int(np.count_nonzero(ours | theirs))


def boundary_width(size: Size) -> int:
    """The d of boundary IoU in pixels, for an image of `size` (H, W)."""
    return max(1, round(BOUNDARY_RATIO * float(np.hypot(*size))))


def boundary(mask: Mask, distance: int) -> Mask:
    """A mask without its erosion by `distance` steps of a 3 x 3 square (`mask_to_boundary` of the reference code).

    bool [H, W] to bool [H, W]. What lies beyond the array counts as outside the mask.
    """
    # The frame of zeros makes the array's border an edge; without it erosion would leave a mask there alone.
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
    inner: Mask = mask & (eroded == 0)
    return inner


def correlation(predicted: ArrayLike, true: ArrayLike) -> float | None:
    """Pearson's correlation of two lists [N]; None where it is not defined: under two values, or all alike."""
    x, y = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    if x.size < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def mean(values: NDArray[np.float64]) -> float:
    """The mean over instances, each counting alike whatever its image and its size."""
    return float(values.mean())
