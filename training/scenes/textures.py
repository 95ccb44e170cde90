"""Colours and textures."""

from __future__ import annotations

import colorsys
from statistics import NormalDist

import cv2
import numpy as np

from training.scenes.canvas import Float

# Gaussian noise by looking random bytes up: twenty times faster than drawing normals, and 256 levels are enough.
_NORMAL = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)], np.float32)


def grain(rng: np.random.Generator, *shape: int) -> Float:
    """White Gaussian noise of deviation 1, float32 `shape`."""
    count = int(np.prod(shape))
    drawn = np.frombuffer(rng.bytes(count), np.uint8).reshape(1, count)
    return np.asarray(cv2.LUT(drawn, _NORMAL), np.float32).reshape(shape)


def smooth_noise(rng: np.random.Generator, h: int, w: int, wavelength: float) -> Float:
    """Noise without detail below `wavelength` pixels, float32 [h, w], mean 0, deviation about 1."""
    if wavelength >= 8 and min(h, w) >= 24:
        # Half the size holds it all, at half the cost.
        half = smooth_noise(rng, (h + 1) // 2, (w + 1) // 2, wavelength / 2)
        return np.asarray(cv2.resize(half, (w, h), interpolation=cv2.INTER_LINEAR), np.float32)
    gh, gw = int(h / wavelength) + 4, int(w / wavelength) + 4
    grid = rng.standard_normal((gh, gw), np.float32) * np.float32(1.35)
    scale = 1 / wavelength
    # An affine map and not resize, so that a wavelength is the same in pixels whatever the patch's size.
    start = rng.random(2) + 1
    matrix = np.array([[scale, 0, start[0]], [0, scale, start[1]]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(grid, matrix, (w, h), flags=flags, borderMode=cv2.BORDER_REFLECT), np.float32)


def octaves(rng: np.random.Generator, h: int, w: int, wavelength: float, count: int = 4, fall: float = 0.55) -> Float:
    """Noise at several scales, each half as long as the one before, float32 [h, w], deviation about 1."""
    total = smooth_noise(rng, h, w, wavelength)
    weight, power = 1.0, 1.0
    for _ in range(count - 1):
        wavelength /= 2
        if wavelength < 1.5:
            break
        weight *= fall
        power += weight**2
        total += np.float32(weight) * smooth_noise(rng, h, w, wavelength)
    return np.asarray(total / np.float32(power**0.5), np.float32)


def _axes(rng: np.random.Generator, h: int, w: int) -> tuple[Float, Float]:
    """Coordinates along two perpendicular random directions, in pixels, float32 [h, w] each."""
    angle = rng.uniform(0, np.pi)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = np.arange(w, dtype=np.float32)[None], np.arange(h, dtype=np.float32)[:, None]
    return c * x + s * y, c * y - s * x


def _gradient(rng: np.random.Generator, h: int, w: int, period: float) -> Float:
    u, _ = _axes(rng, h, w)
    return np.asarray(u * np.float32(2 / (h + w)) - np.float32(u.mean() * 2 / (h + w)), np.float32)


def _stripes(rng: np.random.Generator, h: int, w: int, period: float) -> Float:
    u, _ = _axes(rng, h, w)
    phase = u * np.float32(2 * np.pi / period)
    if rng.random() < 0.5:
        phase += np.float32(rng.uniform(0.3, 1.5)) * smooth_noise(rng, h, w, 3 * period)
    return np.asarray(np.clip(np.sin(phase) * np.float32(rng.choice([1, 3])), -1, 1), np.float32)


def _checker(rng: np.random.Generator, h: int, w: int, period: float) -> Float:
    u, v = _axes(rng, h, w)
    k = np.float32(2 * np.pi / period)
    return np.asarray(np.clip(np.sin(u * k) * np.sin(v * k) * 5, -1, 1), np.float32)


def _dots(rng: np.random.Generator, h: int, w: int, period: float) -> Float:
    u, v = _axes(rng, h, w)
    k = np.float32(2 * np.pi / period)
    dots = (np.cos(u * k) + np.cos(v * k) - np.float32(rng.uniform(0, 1.2))) * 3
    return np.asarray(np.clip(dots, -0.4, 1), np.float32)


def _smooth(rng: np.random.Generator, h: int, w: int, period: float) -> Float:
    return smooth_noise(rng, h, w, 2 * period)


def _octaves(rng: np.random.Generator, h: int, w: int, period: float) -> Float:
    return octaves(rng, h, w, 3 * period)


def _patches(rng: np.random.Generator, h: int, w: int, period: float) -> Float:
    return np.asarray(np.clip(octaves(rng, h, w, 2 * period, 2) * 5, -0.7, 0.7), np.float32)


def _grain(rng: np.random.Generator, h: int, w: int, period: float) -> Float:
    noise = grain(rng, h, w) * np.float32(0.6)
    return np.asarray(cv2.blur(noise, (3, 3)) * 3, np.float32) if rng.random() < 0.5 else noise


def _fibres(rng: np.random.Generator, h: int, w: int, period: float) -> Float:
    """Grass, fur, brushed metal, wood: noise that is long in one direction."""
    size = (5 * max(1, round(period / 3)) + 1, 1)
    noise = cv2.blur(grain(rng, h, w), size if rng.random() < 0.5 else size[::-1])
    return np.asarray(noise * np.float32(size[0] ** 0.5 * 0.7), np.float32)


_KINDS = (_gradient, _stripes, _checker, _dots, _smooth, _octaves, _patches, _grain, _fibres)
_WEIGHTS = np.array([3, 1.5, 0.7, 0.8, 3, 5, 1.2, 2, 1.5])
_CUMULATED = np.cumsum(_WEIGHTS / _WEIGHTS.sum())


def pattern(rng: np.random.Generator, h: int, w: int, period: float) -> Float:
    """A texture of one of many kinds, float32 [h, w], about -1..1 around 0. `period`: its coarseness in pixels."""
    kind = _KINDS[min(int(np.searchsorted(_CUMULATED, rng.random())), len(_KINDS) - 1)]
    return kind(rng, h, w, period)


def colour(rng: np.random.Generator) -> Float:
    """A colour, float32 [3] RGB in 0..1; earthy and grey ones are as frequent as in photographs."""
    kind = rng.random()
    if kind < 0.2:
        hsv = (rng.random(), rng.uniform(0, 0.08), rng.uniform(0.05, 0.95))
    elif kind < 0.55:
        hsv = (rng.uniform(0.02, 0.35), rng.uniform(0.1, 0.6), rng.uniform(0.15, 0.9))
    else:
        hsv = (rng.random(), rng.uniform(0.15, 0.95), rng.uniform(0.15, 0.95))
    return np.array(colorsys.hsv_to_rgb(*hsv), np.float32)


def near(rng: np.random.Generator, base: Float, spread: float) -> Float:
    """A colour like `base`, float32 [3]: mostly lighter or darker, a little of another tint."""
    shift = rng.normal(0, spread) + rng.normal(0, 0.4 * spread, 3)
    return np.asarray(np.clip(base + shift, 0.02, 0.98).astype(np.float32), np.float32)


def apart(new: Float, under: Float, least: float) -> Float:
    """`new` itself, or where it would hardly be seen on `under`, that much lighter or darker; float32 [3]."""
    if float(np.abs(new - under).max()) >= least:
        return new
    lighter = float(under.mean()) < 0.5
    return np.asarray(under + np.float32(least if lighter else -least), np.float32)


def textured(rng: np.random.Generator, h: int, w: int, base: Float, period: float, *, strength: float = 1) -> Float:
    """`base` (float32 [3]) varied by a random pattern: float32, [3, 1, 1] where it is flat, else [3, h, w]."""
    planes = base[:, None, None]
    if rng.random() < 0.12:
        return planes
    contrast = strength * 0.26 * rng.beta(1.3, 3)
    delta = contrast * (1 + rng.normal(0, 0.25, 3)) if rng.random() < 0.8 else rng.normal(0, 0.6 * contrast, 3)
    varied: Float = planes + delta.astype(np.float32)[:, None, None] * pattern(rng, h, w, period)
    if rng.random() < 0.3:
        varied += np.float32(rng.uniform(0.01, 0.05)) * grain(rng, h, w)
    return varied
