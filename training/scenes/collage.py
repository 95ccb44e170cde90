"""Shapes of every kind with every texture, in painter's order: the general case of figure and ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.scenes import shapes
from training.scenes.camera import photograph
from training.scenes.canvas import Canvas, Float
from training.scenes.textures import apart, colour, near, textured


def place(rng: np.random.Generator, canvas: Canvas, centre: Float, radius: float, *, least: float = 0.1) -> None:
    """Paint one random object; `least` is how far its colour stands from what is behind it, of 0..1."""
    patch = shapes.any_shape(rng, centre, radius, canvas.side)
    if patch is None:
        return
    h, w = patch.alpha.shape
    if rng.random() < 0.35:
        shift = rng.normal(0, 0.08 * radius, 2)
        canvas.shadow(patch, (shift[0], abs(shift[1])), rng.uniform(1, 0.2 * radius + 2), rng.uniform(0.2, 0.6))
    under = canvas.under(patch)
    base = near(rng, under, 0.12) if rng.random() < 0.2 else colour(rng)
    skin = textured(rng, h, w, apart(base, under, least), radius * rng.uniform(0.1, 0.7) + 2)
    if rng.random() < 0.3:
        # Roundness: lighter towards one side.
        y, x = np.linspace(-1, 1, h, dtype=np.float32)[:, None], np.linspace(-1, 1, w, dtype=np.float32)[None]
        skin = skin * (1 + np.float32(rng.normal(0, 0.15)) * x + np.float32(rng.normal(0, 0.15)) * y)
    canvas.paint(patch, np.asarray(skin, np.float32))


def collage(rng: np.random.Generator, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Image uint8 [side, side, 3] and ids int32 [side, side]."""
    canvas = Canvas(side, textured(rng, side, side, colour(rng), side * rng.uniform(0.02, 0.2)))
    count = int(rng.integers(3, 26))
    scale = side * rng.uniform(0.5, 1) / (count + 3) ** 0.5
    least = rng.choice([0.09, 0.15, 0.25])
    radii = np.clip(scale * np.exp(rng.normal(0, 0.5, count)), 5, 0.45 * side)
    # Large ones first, mostly: else they hide what was there.
    if rng.random() < 0.7:
        radii = np.sort(radii)[::-1]
    for radius, centre in zip(radii, rng.uniform(0, side, (count, 2)).astype(np.float32), strict=True):
        place(rng, canvas, centre, float(radius), least=least)
    return photograph(rng, canvas.image), canvas.ids
