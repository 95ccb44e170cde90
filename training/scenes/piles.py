"""Fruits, dates, nuts, pebbles: shaded roundish bodies of one kind that touch and lie on each other."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.scenes.camera import photograph
from training.scenes.canvas import Canvas, Float, Patch
from training.scenes.textures import apart, colour, near, octaves, smooth_noise, textured


@dataclass(frozen=True)
class _Form:
    """A superellipse (`power` 2: an ellipse), thinner at one end by `taper`, its axis bent by `bend` half-widths."""

    power: float
    taper: float
    bend: float


def _body(centre: Float, axes: tuple[float, float], angle: float, form: _Form, side: int) -> tuple[Patch, Float] | None:
    """A body's coverage, and its own coordinates, float32 [2, h, w], -1..1 inside; None outside the canvas."""
    power = form.power
    wider = (1.0 if power <= 2 else 1.15) * (1 + 0.6 * form.bend * axes[1] / axes[0]) * (1 + 0.4 * form.taper)
    if form.bend or power > 2:
        reach = np.full(2, max(axes) * wider + 1)
    else:
        turn = np.array([[np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        reach = np.hypot(*(turn * axes).T) * wider + 1
    x0, y0 = (max(int(c - r), 0) for c, r in zip(centre, reach, strict=True))
    x1, y1 = (min(int(c + r) + 1, side) for c, r in zip(centre, reach, strict=True))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return None
    x = np.arange(x0, x1, dtype=np.float32)[None] + np.float32(0.5 - centre[0])
    y = np.arange(y0, y1, dtype=np.float32)[:, None] + np.float32(0.5 - centre[1])
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    own = np.stack([(c * x + s * y) / np.float32(axes[0]), (c * y - s * x) / np.float32(axes[1])])
    if form.taper or form.bend:
        own[1] += np.float32(form.bend) * (own[0] ** 2 - np.float32(0.5))
        own[1] *= 1 / np.maximum(1 - np.float32(form.taper) * own[0], np.float32(0.3))
    radius = own[0] ** 2 + own[1] ** 2 if power == 2 else np.abs(own[0]) ** power + np.abs(own[1]) ** power
    # A pixel is one by the axis long in these units, which lies between the two axes; only the edge's softness errs.
    radius = np.sqrt(radius) if power == 2 else radius ** np.float32(1 / power)
    edge = (1 - radius) * np.float32((axes[0] * axes[1]) ** 0.5) + np.float32(0.5)
    return Patch(x0, y0, np.clip(edge, 0, 1)), own


class _Kind:
    """What the bodies of a scene have in common."""

    def __init__(self, rng: np.random.Generator, light: Float) -> None:
        self.light = light
        self.colour = colour(rng)
        self.spread = rng.uniform(0.01, 0.09)
        self.aspect = rng.uniform(0.4, 1)
        self.form = _Form(
            power=float(rng.choice([2, 2, 2, 2.3, 2.8])),
            taper=rng.uniform(0.1, 0.45) if rng.random() < 0.4 else 0.0,
            bend=rng.uniform(0.2, 0.9) if rng.random() < 0.25 else 0.0,
        )
        self.gloss = rng.uniform(0.1, 0.7) if rng.random() < 0.5 else 0
        self.sharp = int(rng.integers(3, 7))
        self.ambient = rng.uniform(0.4, 0.75)
        self.bumps = rng.uniform(0.02, 0.25)
        stretch = rng.uniform(0.15, 1) if rng.random() < 0.5 else 1
        grid = octaves(rng, 128, 128, rng.uniform(5, 24), 4, 0.7)
        self.skin = np.clip(grid, -2, 2)
        self.scale = np.array([24 * stretch, 24], np.float32)
        self.blush = near(rng, self.colour, 0.25) if rng.random() < 0.4 else None
        self.speckle = -rng.uniform(0.1, 0.3) if rng.random() < 0.2 else 0
        self.tip = rng.random() < 0.3
        self.tip_colour = near(rng, self.colour * 0.5, 0.1)

    def surface(self, rng: np.random.Generator, patch: Patch, own: Float, angle: float, flat: float) -> Float:
        """The colour of one body, float32 [3, h, w]."""
        square = np.minimum((own**2).sum(axis=0), 1)
        height = np.sqrt(1 - square * np.float32(0.96))
        offset = (rng.uniform(30, 98, 2)).astype(np.float32)
        at = own * self.scale[:, None, None] + offset[:, None, None]
        skin = cv2.remap(self.skin, at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        c, s = np.cos(angle), np.sin(angle)
        lx, ly, lz = c * self.light[0] + s * self.light[1], c * self.light[1] - s * self.light[0], self.light[2]
        facing = own[0] * np.float32(lx) + own[1] * np.float32(ly) + height * np.float32(lz)
        shade = np.float32(self.ambient * flat) + np.float32(1.15 * (1 - self.ambient)) * np.maximum(facing, 0)
        shade *= 1 + np.float32(self.bumps) * skin
        base = near(rng, self.colour, self.spread)[:, None, None]
        if self.blush is not None:
            # Ripe on one side.
            side = np.clip(own[0] * np.float32(rng.normal(0, 0.5)) + own[1] * np.float32(0.5) + skin * 0.2 + 0.5, 0, 1)
            base = base + side * (self.blush - self.colour)[:, None, None]
        planes = base * shade
        if self.gloss:
            # Blinn: the half vector lies between the light and the viewer above.
            half = np.array([lx, ly, lz + 1]) / np.linalg.norm([lx, ly, lz + 1])
            shine = own[0] * np.float32(half[0]) + own[1] * np.float32(half[1]) + height * np.float32(half[2])
            shine = np.clip(shine, 0, 1)  # around the body, where nothing of it is painted, it would overflow
            for _ in range(self.sharp):
                shine *= shine
            planes += np.float32(self.gloss) * shine
        if self.speckle:
            planes = planes * (1 + np.float32(self.speckle) * (skin > 0.8))
        if self.tip:
            distance = np.hypot(own[0] - 0.8, own[1]) * 5
            planes = planes + np.clip(1.5 - distance, 0, 1) * (self.tip_colour[:, None, None] - planes)
        return np.asarray(planes, np.float32)


def _centres(rng: np.random.Generator, side: int, radius: float) -> Float:
    """Where the bodies lie, back to front, float32 [n, 2]: all over, in one heap, in rows, or apart."""
    most = 45
    kind = rng.random()
    if kind < 0.35:
        step = radius * rng.uniform(1.3, 1.8)
        along = np.arange(-0.3 * step, side + 0.5 * step, step)
        grid = np.stack(np.meshgrid(along, along), axis=-1)
        grid[::2, :, 0] += step / 2
        centres = grid.reshape(-1, 2) + rng.normal(0, 0.2 * step, (grid.size // 2, 2))
        centres = centres[rng.permutation(len(centres))[:most]]
    elif kind < 0.75:
        count = int(min(most, rng.uniform(0.3, 1.1) * (side / radius / 1.7) ** 2)) + 3
        centres = rng.normal(rng.uniform(0.3, 0.7, 2) * side, side * rng.uniform(0.15, 0.3), (count, 2))
    else:
        count = int(min(most, rng.uniform(0.1, 0.6) * (side / radius / 2) ** 2)) + 2
        centres = rng.uniform(0, side, (count, 2))
    order = np.argsort(centres[:, 1] + rng.normal(0, radius * 0.6, len(centres)))
    return (centres[order] if rng.random() < 0.6 else centres).astype(np.float32)


def piles(rng: np.random.Generator, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Image uint8 [side, side, 3] and ids int32 [side, side]."""
    ground = colour(rng)
    canvas = Canvas(side, textured(rng, side, side, ground, side * rng.uniform(0.02, 0.15)))
    if rng.random() < 0.3:
        canvas.image *= 1 + 0.15 * smooth_noise(rng, side, side, side / 2)
    tilt, turn = rng.uniform(0.1, 1.1), rng.uniform(0, 2 * np.pi)
    light = np.array([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)], np.float32)
    kinds = [_Kind(rng, light) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    for kind in kinds:
        # Shading and shadows make it darker yet.
        kind.colour *= np.float32(max(1, 0.35 / float(kind.colour.max())))
        kind.colour = apart(kind.colour, ground, 0.15)
    radius = side * rng.uniform(0.05, 0.2)
    strength, softness = rng.uniform(0.25, 0.65), rng.uniform(0.1, 0.35)
    direction, jitter = rng.uniform(0, np.pi), rng.choice([0.2, 3])
    for centre in _centres(rng, side, radius):
        kind = kinds[rng.integers(len(kinds))]
        size = radius * np.exp(rng.normal(0, 0.15))
        aspect = np.clip(kind.aspect * rng.uniform(0.85, 1.1), 0.35, 1)
        angle = direction + rng.normal(0, jitter)
        placed = _body(centre, (size / aspect**0.5, size * aspect**0.5), angle, kind.form, side)
        if placed is None:
            continue
        patch, own = placed
        away = -0.25 * size
        canvas.shadow(patch, (away * light[0], away * light[1]), size * softness, strength)
        canvas.paint(patch, kind.surface(rng, patch, own, angle, rng.uniform(0.8, 1.1)))
    return photograph(rng, canvas.image, blur=0.9, noise=0.06), canvas.ids
