"""Pictures without a background: every pixel belongs to a region, as sky, ground, walls and water do in photographs."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.scenes.camera import photograph
from training.scenes.canvas import Canvas, Float, Patch
from training.scenes.collage import place
from training.scenes.parts import put_thing
from training.scenes.textures import apart, colour, octaves, smooth_noise, textured

Labels = NDArray[np.uint8]


def _warp(rng: np.random.Generator, side: int) -> tuple[Float, Float]:
    """Coordinates x and y with noise, float32 [side, side] each: straight lines in them are ragged in the picture."""
    strength = np.float32(side * rng.choice([0, 0.01, 0.03, 0.06]))
    x, y = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    if strength:
        wavelength = side * rng.uniform(0.08, 0.4)
        x += strength * octaves(rng, side, side, wavelength, 3)
        y += strength * octaves(rng, side, side, wavelength, 3)
    return x, y


def _voronoi(rng: np.random.Generator, side: int) -> Labels:
    x, y = _warp(rng, side)
    seeds = rng.uniform(0, side, (int(rng.integers(3, 13)), 2)).astype(np.float32)
    best = np.full((side, side), np.inf, np.float32)
    labels = np.zeros((side, side), np.uint8)
    for i, (sx, sy) in enumerate(seeds):
        # Distances up to x^2 + y^2, which all seeds share.
        distance = x * (-2 * sx) + y * (-2 * sy) + (sx * sx + sy * sy)
        closer = distance < best
        labels[closer] = i
        best = np.minimum(best, distance)
    return labels


def _bands(rng: np.random.Generator, side: int) -> Labels:
    """Levels of smooth noise, as on a map; each connected piece that is not small is a region of its own."""
    noise = smooth_noise(rng, side, side, side * rng.uniform(0.2, 0.6))
    cuts = np.sort(rng.normal(0, 0.8, int(rng.integers(1, 4))))
    levels = np.digitize(noise, cuts).astype(np.uint8)
    if rng.random() < 0.4:
        return levels
    labels = np.zeros((side, side), np.uint8)
    total = 0
    for level in range(len(cuts) + 1):
        count, pieces = cv2.connectedComponents((levels == level).astype(np.uint8), connectivity=4)
        labels[pieces > 0] = np.minimum(pieces[pieces > 0] - 1 + total, 250)
        total += count - 1
    return labels


def _splits(rng: np.random.Generator, side: int) -> Labels:
    """The picture cut by lines again and again: a horizon, then what stands before it."""
    x, y = _warp(rng, side)
    labels = np.zeros((side, side), np.uint8)
    for new in range(1, int(rng.integers(2, 9))):
        angle = rng.normal(np.pi / 2, 0.15) if rng.random() < 0.5 else rng.uniform(0, np.pi)
        if rng.random() < 0.3:
            angle = rng.normal(0, 0.03)
        px, py = rng.uniform(0.1, 0.9, 2) * side
        beyond = (x - np.float32(px)) * np.float32(np.cos(angle)) + (y - np.float32(py)) * np.float32(np.sin(angle)) > 0
        areas = np.bincount(labels.ravel(), minlength=new)
        labels[beyond & (labels == int(np.argmax(areas * rng.uniform(0.3, 1, len(areas)))))] = new
    return labels


def _skin(rng: np.random.Generator, h: int, w: int, base: Float, side: int) -> Float:
    if h > side / 4 and rng.random() < 0.12:
        return base[:, None, None] + _floor(rng, h, w)
    return textured(rng, h, w, base, side * rng.uniform(0.01, 0.12), strength=1.2)


def _floor(rng: np.random.Generator, h: int, w: int) -> Float:
    """Tiles seen in perspective, float32 [h, w] around 0: rows come closer together towards the top."""
    depth = np.float32(1) / np.linspace(0.15, 1, h, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, w, dtype=np.float32)[None] * depth * np.float32(rng.uniform(4, 12))
    tiles = np.sin(x + np.float32(rng.uniform(0, 6))) * np.sin(depth * np.float32(rng.uniform(4, 10)))
    return np.asarray(rng.uniform(0.03, 0.15) * np.clip(4 * tiles, -1, 1), np.float32)


def regions(rng: np.random.Generator, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Image uint8 [side, side, 3] and ids int32 [side, side]."""
    labels = (_voronoi, _bands, _splits, _splits)[rng.integers(4)](rng, side)
    canvas = Canvas(side, np.full((3, 1, 1), 0.5, np.float32))
    used: list[Float] = []
    for label in np.unique(labels):
        mask = (labels == label).astype(np.uint8)
        x, y, w, h = cv2.boundingRect(mask)
        base = colour(rng)
        # Its neighbours are not known yet; the region must be told from all so far.
        for other in used[-6:]:
            base = apart(base, other, 0.1)
        used.append(base)
        hard = mask[y : y + h, x : x + w].astype(np.float32)
        skin = _skin(rng, h, w, base, side)
        canvas.paint(Patch(x, y, hard), skin)
    canvas.image = _smoothed(canvas.image)
    for _ in range(rng.integers(0, 7)):
        centre = rng.uniform(0, side, 2).astype(np.float32)
        if rng.random() < 0.2:
            put_thing(rng, canvas, centre, side * rng.uniform(0.1, 0.3))
        else:
            place(rng, canvas, centre, side * rng.uniform(0.03, 0.2))
    return photograph(rng, canvas.image, blur=0.8), canvas.ids


def _smoothed(image: Float) -> Float:
    """Hard edges between regions become those of an antialiased picture."""
    return np.stack([np.asarray(cv2.GaussianBlur(plane, (3, 3), 0.55), np.float32) for plane in image])
