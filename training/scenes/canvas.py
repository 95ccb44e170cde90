"""A scene in the making: an image, and for each pixel the number of the object that is visible there.

Planes come first, [3, H, W]: numpy's broadcasting over a last axis of three is several times slower.
Continuous coordinates (x, y) have pixel i's centre at i + 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
MOST_OBJECTS = 250
"""So that ids fit into uint8."""


@dataclass(frozen=True)
class Patch:
    """Coverage of one shape, `alpha` float32 [h, w] in 0..1, whose first pixel is the canvas's pixel (x, y).

    It lies inside the canvas.
    """

    x: int
    y: int
    alpha: Float

    @property
    def window(self) -> tuple[slice, slice]:
        h, w = self.alpha.shape
        return slice(self.y, self.y + h), slice(self.x, self.x + w)


class Canvas:
    """`image` float32 [3, side, side] RGB, about 0..1 (clipped only when photographed); `ids` int32 [side, side]."""

    def __init__(self, side: int, background: Float) -> None:
        """`background`: float32, broadcast to [3, side, side]."""
        self.side = side
        self.image: Float = np.empty((3, side, side), np.float32)
        self.image[:] = background
        self.ids = np.zeros((side, side), np.int32)
        self.count = 0

    def under(self, patch: Patch) -> Float:
        """Mean colour of what the patch would cover, float32 [3]."""
        rows, columns = patch.window
        region = self.image[:, rows, columns]
        weight = patch.alpha / max(float(patch.alpha.sum()), 1e-3)
        return np.asarray(region.reshape(3, -1) @ weight.ravel(), np.float32)

    def paint(self, patch: Patch, colour: Float, *, same: bool = False) -> None:
        """Lay a new object, or with `same` more of the last one, over everything so far.

        `colour`: float32, broadcast to [3, h, w].
        """
        rows, columns = patch.window
        region = self.image[:, rows, columns]
        region += patch.alpha * (colour - region)
        self.count += not same
        self.ids[rows, columns][patch.alpha >= 0.5] = self.count

    def shadow(self, patch: Patch, shift: tuple[float, float], softness: float, strength: float) -> None:
        """Darken what lies around the patch's place moved by `shift` (x, y), before the patch itself is painted."""
        reach = max(1, round(softness))
        dx, dy = round(shift[0]), round(shift[1])
        h, w = patch.alpha.shape
        padded = cv2.copyMakeBorder(patch.alpha, 2 * reach, 2 * reach, 2 * reach, 2 * reach, cv2.BORDER_CONSTANT)
        kernel = (2 * reach + 1, 2 * reach + 1)
        # Two box filters: close to a Gaussian, at a cost that does not grow with the softness.
        soft = cv2.blur(cv2.blur(padded, kernel), kernel)
        x, y = patch.x + dx - 2 * reach, patch.y + dy - 2 * reach
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + w + 4 * reach, self.side), min(y + h + 4 * reach, self.side)
        if x0 >= x1 or y0 >= y1:
            return
        self.image[:, y0:y1, x0:x1] *= 1 - strength * soft[y0 - y : y1 - y, x0 - x : x1 - x]


def numbered(ids: NDArray[np.int32], least: int = 20) -> NDArray[np.uint8]:
    """The same objects numbered 1..n without gaps, background where fewer than `least` pixels are visible.

    What comes after the first `MOST_OBJECTS` is left to background too.
    """
    areas = np.bincount(ids.ravel())
    kept = areas >= least
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0)
    return np.where(numbers <= MOST_OBJECTS, numbers, 0).astype(np.uint8)[ids]
