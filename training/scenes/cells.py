"""Microscopy: many roundish cells or nuclei, fluorescent on dark or stained on light, often touching and faint."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.scenes import shapes
from training.scenes.camera import photograph
from training.scenes.canvas import Canvas, Float
from training.scenes.textures import colour, grain, octaves, smooth_noise


def _places(rng: np.random.Generator, side: int, radii: Float, clustered: bool, overlap: float) -> list[int | Float]:
    """Centres for circles of the given radii, one entry each: float32 [2], or -1 where none was free.

    `overlap`: the least distance of two centres, in sums of their radii.
    """
    count = len(radii)
    if clustered:
        hubs = rng.uniform(0, side, (2 + count // 9, 2))
        spread = radii.mean() * rng.uniform(1.5, 3.5)
        tries = hubs[rng.integers(len(hubs), size=(count, 6))] + rng.normal(0, spread, (count, 6, 2))
    else:
        tries = rng.uniform(0, side, (count, 6, 2))
    taken = np.full((count, 2), np.inf, np.float32)
    found: list[int | Float] = []
    for i, candidates in enumerate(tries.astype(np.float32)):
        if i == 0:
            free = np.ones(6, bool)
        else:
            gaps = np.hypot(*(candidates[:, None] - taken[None, :i]).transpose(2, 0, 1)) / (radii[:i] + radii[i])
            free = (gaps > overlap).all(axis=1)
        free &= ((candidates > -0.3 * radii[i]) & (candidates < side + 0.3 * radii[i])).all(axis=1)
        if free.any():
            taken[i] = candidates[int(np.argmax(free))]
            found.append(taken[i])
        else:
            found.append(-1)
    return found


def _tint(rng: np.random.Generator) -> Float:
    """The colour of a fluorescent dye, float32 [3], its largest channel 1."""
    if rng.random() < 0.65:
        return np.ones(3, np.float32)
    dyes = np.array([[0.15, 0.35, 1], [0.2, 1, 0.25], [1, 0.2, 0.2], [0.1, 0.9, 1], [1, 0.3, 0.9]], np.float32)
    return np.asarray(dyes[rng.integers(len(dyes))], np.float32)


def cells(rng: np.random.Generator, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Image uint8 [side, side, 3] and ids int32 [side, side]; a cell that lies on another hides it."""
    dark = rng.random() < 0.55
    radius = side * rng.uniform(0.018, 0.075)
    most = int(min(60, 0.8 * (side / radius / 2) ** 2))
    count = int(rng.integers(5, max(most, 6) + 1))
    radii = np.clip(radius * np.exp(rng.normal(0, rng.uniform(0.05, 0.35), count)), 2.8, None).astype(np.float32)
    outlines = shapes.blobs(rng, count, rng.choice([0.04, 0.1, 0.2]), 32)
    aspect = rng.uniform(rng.uniform(0.45, 0.95), 1, count)
    outlines *= np.stack([1 / np.sqrt(aspect), np.sqrt(aspect)], axis=-1)[:, None].astype(np.float32)
    places = _places(rng, side, radii, rng.random() < 0.5, rng.choice([0.55, 0.8, 0.95, 1.05]))
    # Depth of the stain, 0 where there is no cell: one plane, coloured at the end, because grey is common.
    depth = Canvas(side, np.zeros((1, 1, 1), np.float32))
    depth.image = depth.image[:1]
    levels = np.clip(np.exp(rng.normal(0, rng.uniform(0.05, 0.45), count)), 0.4, 2).astype(np.float32)
    dome, rim = rng.uniform(0, 0.7), rng.uniform(0, 0.5) * (rng.random() < 0.4)
    gap = rng.uniform(0.2, 0.6) if rng.random() < 0.5 else 0.0
    for i, place in enumerate(places):
        if isinstance(place, int):
            continue
        patch = shapes.fill([shapes.turned(outlines[i] * radii[i], rng.uniform(0, 2 * np.pi), place)], side)
        if patch is None:
            continue
        reach = 2 * max(1, int(radii[i] * 0.35)) + 1
        inside = cv2.blur(patch.alpha, (reach, reach), borderType=cv2.BORDER_REPLICATE)
        level = levels[i] * (1 + np.float32(dome) * (inside - 1) + np.float32(rim) * (1 - inside))
        if gap:
            # A seam, thin and faint, between cells that touch.
            depth.shadow(patch, (0, 0), max(1.0, float(radii[i]) * 0.12), gap)
        depth.paint(patch, level[None])
    stain = depth.image[0]
    # Exposed for the brighter cells: what is saturated shows no border to its neighbour.
    stain *= np.float32(1.15 / max(float(levels.max()), 0.5))
    inner = octaves(rng, side, side, radius * rng.uniform(0.3, 1.2), 3)
    stain *= np.clip(1 + np.float32(rng.uniform(0.03, 0.35)) * inner, 0.35, 1.8)
    if rng.random() < 0.4:
        # Light from out of focus: every cell glows into its surroundings.
        reach = 2 * round(radius * rng.uniform(0.5, 2)) + 1
        stain += np.float32(rng.uniform(0.1, 0.4)) * cv2.blur(cv2.blur(stain, (reach, reach)), (reach, reach))
    gain = rng.uniform(0.16, 0.6) if rng.random() < 0.7 else rng.uniform(0.6, 0.85)
    image = _fluorescent(rng, stain, gain) if dark else _stained(rng, stain, radius)
    blur = min(rng.uniform(0.5, 2), radius / 6 * 256 / side)
    grey = 0.1 if dark else 0.4
    noise = min(0.1, 0.3 * gain) if dark else 0.06
    return photograph(rng, image, blur=blur, noise=noise, grey=grey, exposed=0), depth.ids


def _fluorescent(rng: np.random.Generator, stain: Float, gain: float) -> Float:
    """Cells that shine, `gain` bright, on a ground that is nearly dark."""
    side = stain.shape[0]
    floor = rng.uniform(0, 0.15)
    plane = floor * (1 + 0.3 * smooth_noise(rng, side, side, side / 3)) + np.float32(gain) * stain
    if rng.random() < 0.4:
        # The sensor's noise grows with the light; faint pictures show it most.
        plane += np.float32(gain * rng.uniform(0.02, 0.12)) * grain(rng, side, side) * np.sqrt(plane.clip(0.05))
    return np.asarray(_tint(rng)[:, None, None] * plane, np.float32)


def _stained(rng: np.random.Generator, stain: Float, radius: float) -> Float:
    """Cells as they take light away, with the dye's colour on a light ground."""
    side = stain.shape[0]
    kind = rng.random()
    if kind < 0.5:
        ground = np.array([0.87, 0.68, 0.8], np.float32) + rng.normal(0, 0.06, 3).astype(np.float32)
        dye = np.array([0.4, 0.24, 0.55], np.float32) + rng.normal(0, 0.07, 3).astype(np.float32)
        uneven = rng.uniform(0.02, 0.09)
    else:
        ground = rng.uniform(0.55, 0.95) + rng.normal(0, 0.04, 3).astype(np.float32)
        dye = ground - rng.uniform(0.15, 0.6) if kind < 0.8 else 0.8 * colour(rng)
        uneven = rng.uniform(0, 0.05)
    if float((ground - dye).max()) < 0.15:
        dye = ground - 0.2
    texture = octaves(rng, side, side, radius * rng.uniform(0.5, 3), 4) * np.float32(uneven)
    image = ground.astype(np.float32)[:, None, None] + texture * np.array([0.6, 1, 0.7], np.float32)[:, None, None]
    image += stain * (dye - ground).astype(np.float32)[:, None, None]
    return np.asarray(image, np.float32)
