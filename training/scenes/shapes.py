"""Shapes: outlines in continuous canvas coordinates, and their antialiased coverage."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from training.scenes.canvas import Float, Patch

_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX)
_LETTERS = "ABCDEFGHJKLMNPRSTUVXYZabdefhkmnrst234568&?"


def _box(points: Float, margin: float, side: int) -> tuple[int, int, int, int] | None:
    low = np.maximum(np.floor(points.min(axis=0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(points.max(axis=0) + margin), side).astype(int)
    if (high - low).min() < 1:
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _fine(box: tuple[int, int, int, int]) -> int:
    # Four by four samples; half of that for large shapes, whose edge is a small part of them.
    return 4 if (box[2] - box[0]) * (box[3] - box[1]) < 96**2 else 2


def _coverage(box: tuple[int, int, int, int], drawn: np.ndarray, fine: int) -> Patch:
    w, h = box[2] - box[0], box[3] - box[1]
    small = cv2.resize(drawn, (w, h), interpolation=cv2.INTER_AREA)
    return Patch(box[0], box[1], small.astype(np.float32) * np.float32(1 / 255))


def fill(contours: Sequence[Float], side: int) -> Patch | None:
    """Coverage of the area inside an odd number of `contours` (float32 [n, 2] each); None outside the canvas."""
    box = _box(np.concatenate(contours), 1, side)
    if box is None:
        return None
    fine = _fine(box)
    drawn = np.zeros(((box[3] - box[1]) * fine, (box[2] - box[0]) * fine), np.uint8)
    corner = np.array(box[:2], np.float32)
    cv2.fillPoly(drawn, [np.rint((c - corner) * fine - 0.5).astype(np.int32) for c in contours], 255)
    return _coverage(box, drawn, fine)


def stroke(line: Float, width: float, side: int, *, closed: bool = False) -> Patch | None:
    """Coverage of a round pen `width` pixels wide along `line` (float32 [n, 2]); None outside the canvas."""
    box = _box(line, width / 2 + 1, side)
    if box is None:
        return None
    fine = _fine(box)
    drawn = np.zeros(((box[3] - box[1]) * fine, (box[2] - box[0]) * fine), np.uint8)
    points = np.rint((line - np.array(box[:2], np.float32)) * fine - 0.5).astype(np.int32)
    cv2.polylines(drawn, [points], closed, 255, max(1, round(width * fine)))
    return _coverage(box, drawn, fine)


def letter(rng: np.random.Generator, centre: Float, height: float, side: int) -> Patch | None:
    """Coverage of one upright glyph about `height` pixels high."""
    half = np.array([height, height], np.float32)
    box = _box(np.stack([centre - half, centre + half]), 0, side)
    if box is None:
        return None
    drawn = np.zeros(((box[3] - box[1]) * 4, (box[2] - box[0]) * 4), np.uint8)
    glyph, font = _LETTERS[rng.integers(len(_LETTERS))], _FONTS[rng.integers(len(_FONTS))]
    thickness = max(2, round(height * 4 * rng.uniform(0.12, 0.3)))
    scale = height * 4 / 22
    (w, h), _ = cv2.getTextSize(glyph, font, scale, thickness)
    at = (centre - np.array(box[:2], np.float32)) * 4
    cv2.putText(drawn, glyph, (round(float(at[0]) - w / 2), round(float(at[1]) + h / 2)), font, scale, 255, thickness)
    return _coverage(box, drawn, 4)


def turned(outline: Float, angle: float, centre: Float) -> Float:
    """`outline` rotated about its origin and moved to `centre`, float32 [n, 2]."""
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(outline @ np.array([[c, s], [-s, c]], np.float32) + centre, np.float32)


def blobs(rng: np.random.Generator, count: int, roughness: float, points: int = 48) -> Float:
    """Outlines of radius about 1 around the origin, float32 [count, points, 2].

    The radius is 1 plus harmonics of the angle whose amplitude falls with their order.
    """
    t = np.linspace(0, 2 * np.pi, points, endpoint=False, dtype=np.float32)
    orders = np.arange(2, 8, dtype=np.float32)
    amplitude = rng.normal(0, roughness, (count, len(orders))) / orders
    phase = rng.uniform(0, 2 * np.pi, (count, len(orders)))
    waves = np.cos(orders[None, :, None] * t + phase[..., None].astype(np.float32))
    radius = np.maximum(1 + (amplitude[..., None] * waves).sum(axis=1), 0.25)
    return np.asarray(radius[..., None] * np.stack([np.cos(t), np.sin(t)], axis=-1), np.float32)


def superellipse(a: float, b: float, power: float, points: int = 48) -> Float:
    """|x / a|^power + |y / b|^power = 1 around the origin, float32 [points, 2]: diamond, ellipse, rounded box."""
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    x = a * np.sign(c) * np.abs(c) ** (2 / power)
    y = b * np.sign(s) * np.abs(s) ** (2 / power)
    return np.stack([x, y], axis=-1).astype(np.float32)


def star(rng: np.random.Generator, inner: float, tips: int) -> Float:
    """A star with `tips` tips at radius 1 and its notches at radius `inner`, float32 [2 * tips, 2]."""
    t = np.linspace(0, 2 * np.pi, 2 * tips, endpoint=False) + rng.normal(0, 0.06, 2 * tips)
    radius = np.where(np.arange(2 * tips) % 2, inner, 1) * rng.uniform(0.85, 1.1, 2 * tips)
    return np.stack([radius * np.cos(t), radius * np.sin(t)], axis=-1).astype(np.float32)


def polygon(rng: np.random.Generator, corners: int) -> Float:
    """An irregular polygon of radius about 1, float32 [corners, 2]."""
    t = np.sort(rng.uniform(0, 2 * np.pi, corners) * 0.4 + np.linspace(0, 2 * np.pi, corners, endpoint=False))
    radius = rng.uniform(0.55, 1.2, corners)
    return np.stack([radius * np.cos(t), radius * np.sin(t)], axis=-1).astype(np.float32)


def curve(rng: np.random.Generator, length: float, bend: float, points: int = 24) -> Float:
    """A smooth line around the origin, float32 [points, 2]. `bend`: deviation of its direction, in radians."""
    knots = rng.normal(0, bend, 4)
    heading = np.interp(np.linspace(0, 3, points), np.arange(4), knots)
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=-1) * (length / points)
    line = np.cumsum(steps, axis=0)
    return np.asarray(line - line.mean(axis=0), np.float32)


def any_shape(rng: np.random.Generator, centre: Float, radius: float, side: int) -> Patch | None:
    """One shape of a random kind, turned, about `radius` pixels in radius; None where it misses the canvas."""
    kind = rng.random()
    angle = rng.uniform(0, 2 * np.pi)
    if kind < 0.12:
        outline = polygon(rng, int(rng.integers(3, 9)))
    elif kind < 0.18:
        outline = star(rng, rng.uniform(0.35, 0.7), int(rng.integers(4, 9)))
    elif kind < 0.42:
        outline = blobs(rng, 1, rng.uniform(0.1, 0.6))[0] * rng.uniform(0.4, 1, 2).astype(np.float32)
    elif kind < 0.62:
        outline = superellipse(rng.uniform(0.3, 1.1), rng.uniform(0.4, 1), float(rng.choice([1.2, 2, 2, 3, 6, 40])))
        if rng.random() < 0.5:
            angle = rng.normal(0, 0.05)
    elif kind < 0.74:
        return _ring(rng, centre, radius, side)
    elif kind < 0.9:
        width = rng.uniform(2, 6) * max(side / 256, 0.6)
        line = curve(rng, radius * rng.uniform(2, 5), rng.choice([0, 0, 0.6, 1.2]))
        return stroke(turned(line, angle, centre), width, side)
    elif kind < 0.95:
        return letter(rng, centre, max(radius * 1.3, 12), side)
    else:
        outline = np.array([[-1, -0.6], [0.2, -0.6], [0.2, -1], [1.1, 0], [0.2, 1], [0.2, 0.6], [-1, 0.6]], np.float32)
        outline = outline * rng.uniform(0.4, 1, 2).astype(np.float32)
    return fill([turned(outline * np.float32(radius), angle, centre)], side)


def _ring(rng: np.random.Generator, centre: Float, radius: float, side: int) -> Patch | None:
    """A shape with one or several holes."""
    outer = blobs(rng, 1, rng.choice([0, 0.2]))[0] if rng.random() < 0.6 else superellipse(1, 0.8, 20)
    contours = [outer]
    if rng.random() < 0.6:
        contours.append(outer * np.float32(rng.uniform(0.4, 0.8)))
    else:
        for at in rng.uniform(0, 2 * np.pi) + np.array([0, 2.1, 4.2][: rng.integers(1, 4)]):
            hole = superellipse(0.22, 0.22, 2, 20) * np.float32(rng.uniform(0.7, 1.2))
            contours.append(hole + 0.45 * np.array([np.cos(at), np.sin(at)], np.float32))
    angle = rng.uniform(0, 2 * np.pi)
    return fill([turned(c * np.float32(radius), angle, centre) for c in contours], side)
