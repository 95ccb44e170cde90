"""Unlimited synthetic scenes with exact masks, to train a promptable segmentation model on.

No picture was taken and no mask drawn by hand, so a score on any real data set is zero-shot. Only numpy and OpenCV.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.scenes.canvas import numbered
from training.scenes.cells import cells
from training.scenes.collage import collage
from training.scenes.parts import parts
from training.scenes.piles import piles
from training.scenes.regions import regions

Style = Callable[[np.random.Generator, int], tuple[NDArray[np.uint8], NDArray[np.int32]]]
STYLES: dict[str, tuple[Style, float]] = {
    "cells": (cells, 0.22),
    "piles": (piles, 0.22),
    "collage": (collage, 0.24),
    "regions": (regions, 0.2),
    "parts": (parts, 0.12),
}
"""Each style and how often it is drawn; the frequencies add up to 1."""


def scene(rng: np.random.Generator, side: int, style: str | None = None) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One scene: image uint8 [side, side, 3] RGB, and ids uint8 [side, side].

    An id is 0 for background, else 1..n for the visible part of one object, which is at least 20 pixels; what hides an
    object may cut it into several pieces. n is at most 250, and at least 1. The scene depends on the state of `rng`
    and `side` alone. `style`: a key of `STYLES`, or one drawn at random. Sides from 32 on make sense.
    """
    if style is None:
        style = str(rng.choice(list(STYLES), p=[weight for _, weight in STYLES.values()]))
    while True:
        image, drawn = STYLES[style][0](rng, side)
        ids = numbered(drawn)
        if ids.any():
            return image, ids
