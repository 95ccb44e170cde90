"""Figures, vehicles, houses, flowers, inventions: each of their parts is an object, or all parts together are one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.scenes import shapes
from training.scenes.camera import photograph
from training.scenes.canvas import Canvas, Float, Patch
from training.scenes.textures import apart, colour, near, textured


class _Thing:
    """One thing on the canvas: parts are given in its own frame, x to its right, y down, its size 1."""

    def __init__(self, rng: np.random.Generator, canvas: Canvas, centre: Float, size: float) -> None:
        self.rng, self.canvas, self.centre, self.size = rng, canvas, centre, size
        self.angle = rng.normal(0, 0.15)
        self.mirror = rng.choice([-1.0, 1.0])
        # As often as in photographs that people labelled, the whole of it is one object and its parts are none.
        self.whole = rng.random() < 0.35
        self.begun = False
        self.shadow = rng.uniform(0, 0.5) * (rng.random() < 0.6)

    def _at(self, outline: Float) -> Float:
        sized = outline * np.array([self.mirror * self.size, self.size], np.float32)
        return shapes.turned(sized, self.angle, self.centre)

    def _paint(self, patch: Patch | None, base: Float) -> None:
        if patch is None:
            return
        h, w = patch.alpha.shape
        if self.shadow:
            self.canvas.shadow(patch, (0.01 * self.size, 0.03 * self.size), 0.05 * self.size + 1, self.shadow)
        base = apart(base, self.canvas.under(patch), 0.1)
        skin = textured(self.rng, h, w, base, self.size * self.rng.uniform(0.03, 0.2) + 2, strength=0.6)
        self.canvas.paint(patch, skin, same=self.whole and self.begun)
        self.begun = True

    def blob(self, x: float, y: float, a: float, b: float, base: Float, power: float = 2, turn: float = 0) -> None:
        outline = shapes.superellipse(a, b, power, 40)
        self.outline(shapes.turned(outline, turn, np.array([x, y], np.float32)), base)

    def outline(self, points: Float, base: Float) -> None:
        self._paint(shapes.fill([self._at(points)], self.canvas.side), base)

    def line(self, points: list[tuple[float, float]], width: float, base: Float) -> None:
        at = self._at(np.array(points, np.float32))
        self._paint(shapes.stroke(at, max(2.0, width * self.size), self.canvas.side), base)


def _figure(rng: np.random.Generator, t: _Thing) -> None:
    skin, coat, trousers = near(rng, np.array([0.75, 0.55, 0.42], np.float32), 0.12), colour(rng), colour(rng)
    sway = rng.normal(0, 0.12, 6)
    for i, side in enumerate((-1, 1)):
        t.line([(0.1 * side, 0.2), (0.12 * side + sway[i], 0.55), (0.14 * side + sway[i + 2], 0.95)], 0.13, trousers)
    t.line([(-0.18, -0.3), (-0.32 + sway[4], 0), (-0.3 + sway[5], 0.25)], 0.09, near(rng, coat, 0.06))
    t.blob(0, -0.08, 0.22, 0.36, coat, 3.5)
    t.line([(0.18, -0.3), (0.34 + sway[1], -0.05), (0.3 + sway[0], 0.2)], 0.09, near(rng, coat, 0.06))
    t.blob(0, -0.62, 0.14, 0.18, skin)
    if rng.random() < 0.7:
        t.blob(0, -0.75, 0.16, 0.09, colour(rng), 3)


def _vehicle(rng: np.random.Generator, t: _Thing) -> None:
    paint, glass = colour(rng), near(rng, np.array([0.35, 0.45, 0.5], np.float32), 0.1)
    t.outline(np.array([[-0.5, 0], [-0.35, -0.4], [0.3, -0.4], [0.55, 0]], np.float32), paint)
    t.outline(np.array([[-0.42, -0.03], [-0.3, -0.34], [-0.05, -0.34], [-0.05, -0.03]], np.float32), glass)
    t.outline(np.array([[0, -0.03], [0, -0.34], [0.26, -0.34], [0.43, -0.03]], np.float32), near(rng, glass, 0.04))
    t.blob(0, 0.17, 1, 0.22, near(rng, paint, 0.08), 6)
    for x in (-0.55, 0.55):
        t.blob(x, 0.36, 0.2, 0.2, near(rng, np.full(3, 0.15, np.float32), 0.05))
        t.blob(x, 0.36, 0.1, 0.1, near(rng, np.full(3, 0.6, np.float32), 0.1))
    t.blob(0.9, 0.1, 0.07, 0.06, np.array([0.95, 0.85, 0.4], np.float32))


def _house(rng: np.random.Generator, t: _Thing) -> None:
    wall, roof, glass, tall = colour(rng), colour(rng), colour(rng), rng.uniform(0.5, 0.8)
    if rng.random() < 0.5:
        t.blob(0.35, -0.55, 0.08, 0.3, near(rng, roof, 0.1), 30)
    t.blob(0, tall / 2, 0.7, tall / 2, wall, 60)
    t.outline(np.array([[-0.85, 0.02], [0, -rng.uniform(0.5, 0.8)], [0.85, 0.02]], np.float32), roof)
    t.blob(rng.uniform(-0.1, 0.1), tall * 0.7, 0.12, tall * 0.3, colour(rng), 40)
    for x in (-0.45, 0.45):
        t.blob(x, tall * 0.4, 0.15, tall * 0.2, glass, 40)


def _flower(rng: np.random.Generator, t: _Thing) -> None:
    petal, green = colour(rng), near(rng, np.array([0.2, 0.5, 0.2], np.float32), 0.1)
    t.line([(0, 0), (0.05, 0.5), (0, 1)], 0.07, green)
    t.blob(0.25, 0.65, 0.25, 0.09, near(rng, green, 0.08), turn=-0.5)
    count = int(rng.integers(5, 10))
    for k in range(count):
        turn = 2 * np.pi * k / count
        t.blob(0.36 * np.cos(turn), 0.36 * np.sin(turn), 0.27, 1.1 / count, near(rng, petal, 0.06), turn=turn)
    t.blob(0, 0, 0.17, 0.17, colour(rng))


def _animal(rng: np.random.Generator, t: _Thing) -> None:
    fur = colour(rng)
    t.line([(-0.55, -0.05), (-0.8, -0.2), (-0.9, -0.45)], 0.07, near(rng, fur, 0.08))
    for x in (-0.42, -0.25, 0.25, 0.42):
        foot = x + rng.normal(0, 0.06)
        t.line([(x, 0.1), (foot, 0.6)], 0.12, near(rng, fur, 0.08))
    t.blob(0, 0, 0.6, 0.28, fur, 2.4)
    t.blob(0.62, -0.22, 0.24, 0.2, near(rng, fur, 0.08))
    t.blob(0.8, -0.15, 0.12, 0.09, near(rng, fur, 0.2))
    t.outline(np.array([[0.5, -0.35], [0.48, -0.62], [0.65, -0.4]], np.float32), near(rng, fur, 0.12))
    t.blob(0.66, -0.28, 0.035, 0.035, np.full(3, 0.05, np.float32))


def _invention(rng: np.random.Generator, t: _Thing) -> None:
    """A body with pairs of parts on both sides of its axis."""
    base = colour(rng)
    for _ in range(rng.integers(1, 4)):
        x, y = rng.uniform(0.3, 0.7), rng.uniform(-0.7, 0.7)
        a, b, turn, power = rng.uniform(0.15, 0.5), rng.uniform(0.08, 0.25), rng.normal(0, 0.7), rng.choice([2, 4, 30])
        tint = colour(rng)
        t.blob(x, y, a, b, tint, power, turn)
        t.blob(-x, y, a, b, near(rng, tint, 0.03), power, -turn)
    body = shapes.blobs(rng, 1, 0.3)[0] * rng.uniform(0.4, 0.8, 2).astype(np.float32)
    t.outline(body, base)
    for _ in range(rng.integers(1, 4)):
        x, y, a = rng.uniform(0, 0.25), rng.uniform(-0.4, 0.4), rng.uniform(0.06, 0.2)
        tint = colour(rng)
        t.blob(x, y, a, a * rng.uniform(0.5, 1), tint)
        if x > 0.1:
            t.blob(-x, y, a, a, tint)


_THINGS = (_figure, _vehicle, _house, _flower, _animal, _invention, _invention)


def put_thing(rng: np.random.Generator, canvas: Canvas, centre: Float, size: float) -> None:
    """Paint one thing about twice `size` pixels large around `centre` (float32 [2], (x, y))."""
    _THINGS[rng.integers(len(_THINGS))](rng, _Thing(rng, canvas, centre, size))


def parts(rng: np.random.Generator, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Image uint8 [side, side, 3] and ids int32 [side, side]."""
    canvas = Canvas(side, textured(rng, side, side, colour(rng), side * rng.uniform(0.02, 0.2)))
    if rng.random() < 0.4:
        # Ground to stand on, without a label of its own.
        y = int(side * rng.uniform(0.4, 0.8))
        canvas.image[:, y:] = textured(rng, side - y, side, colour(rng), side * rng.uniform(0.02, 0.2))
    count = int(rng.integers(1, 6))
    for centre in rng.uniform(0.15, 0.85, (count, 2)).astype(np.float32) * np.float32(side):
        put_thing(rng, canvas, centre, side * rng.uniform(0.3, 0.55) / count**0.5)
    return photograph(rng, canvas.image), canvas.ids
