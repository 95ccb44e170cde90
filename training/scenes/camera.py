"""Simulated light, lens, sensor and compression for a drawn scene. None of them moves an edge."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.scenes.canvas import Float
from training.scenes.textures import grain, smooth_noise


def _light(rng: np.random.Generator, image: Float) -> None:
    """Uneven illumination and a vignette, in place."""
    side = image.shape[1]
    if rng.random() < 0.5:
        field = smooth_noise(rng, side, side, side * rng.uniform(0.6, 2))
        image *= np.clip(1 + np.float32(rng.uniform(0.05, 0.25)) * field, 0.45, 1.6)
    if rng.random() < 0.25:
        along = np.linspace(-1, 1, side, dtype=np.float32) ** 2
        image *= 1 - np.float32(rng.uniform(0.1, 0.3)) * (along[:, None] + along[None])
    if rng.random() < 0.3:
        image *= rng.normal(1, 0.08, (3, 1, 1)).astype(np.float32)


def lens(rng: np.random.Generator, image: Float, blur: float) -> Float:
    """Blur, of defocus, motion or a lower resolution; float32 [side, side, 3]."""
    side = image.shape[0]
    kind = rng.random()
    unit = side / 256
    if kind < 0.5:
        sigma = float(blur * unit * rng.uniform(0.3, 1.3))
        if sigma > 0.25:
            image = cv2.GaussianBlur(image, (0, 0), sigma)  # type: ignore[assignment]
    elif kind < 0.6:
        reach = max(1, round(unit * rng.uniform(1, 3)))
        kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
        angle = rng.uniform(0, np.pi)
        dx, dy = round(reach * np.cos(angle)), round(reach * np.sin(angle))
        cv2.line(kernel, (reach - dx, reach - dy), (reach + dx, reach + dy), 1)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())  # type: ignore[assignment]
    elif kind < 0.72:
        low = int(side / rng.uniform(1.3, 2.2))
        small = cv2.resize(image, (low, low), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
    return image


def _noise(rng: np.random.Generator, image: Float, noise: float) -> None:
    """Sensor noise, coloured or grey, white or a little correlated, in place."""
    side = image.shape[0]
    deviation = noise * rng.beta(1, 2.5)
    if deviation < 0.003:
        return
    drawn = grain(rng, side, side, 3) if rng.random() < 0.5 else grain(rng, side, side)
    if rng.random() < 0.4:
        drawn = cv2.GaussianBlur(drawn, (3, 3), 0.7) * np.float32(2.2)
    if drawn.ndim == 2:
        drawn = cv2.merge([drawn, drawn, drawn])  # type: ignore[assignment]
    if rng.random() < 0.5:
        # Shot noise grows with the square root of the light.
        drawn *= np.sqrt(np.clip(image, 0.02, 1)) * np.float32(1.4)
    image += np.float32(deviation) * drawn


def photograph(
    rng: np.random.Generator,
    image: Float,
    *,
    blur: float = 1,
    noise: float = 0.08,
    grey: float = 0.12,
    exposed: float = 0.6,
) -> NDArray[np.uint8]:
    """The picture of a canvas, uint8 [side, side, 3] RGB.

    `image`: float32 [3, side, side], used up. `blur`: a usual Gaussian's deviation, in pixels at side 256. `noise`: the
    largest deviation of the noise, of 0..1. `grey`: how often the picture has no colour. `exposed`: how often its
    mean brightness is what a camera would choose.
    """
    if rng.random() < exposed:
        # Not more than twofold, for dark things stay dark; nor so that a border is lost in white.
        sample = image[:, ::8, ::8]
        most = min(2.0, 1 / max(float(np.quantile(sample, 0.97)), 0.3))
        image *= np.float32(np.clip(rng.uniform(0.3, 0.6) / max(float(sample.mean()), 0.05), 0.75, max(most, 0.75)))
    _light(rng, image)
    if rng.random() < grey:
        planes = [np.tensordot(np.array([0.3, 0.59, 0.11], np.float32), image, 1)] * 3
    else:
        planes = list(image)
    picture = lens(rng, np.asarray(cv2.merge(planes), np.float32), blur)
    if rng.random() < 0.4:
        # Haze or a tired film: less contrast, another black.
        picture *= np.float32(rng.uniform(0.6, 1.1))
        picture += np.float32(rng.uniform(-0.05, 0.2))
    _noise(rng, picture, noise)
    shot = np.asarray(cv2.convertScaleAbs(np.maximum(picture, 0), alpha=255), np.uint8)
    if rng.random() < 0.4:
        curve = np.rint(255 * np.linspace(0, 1, 256) ** np.exp(rng.normal(0, 0.3))).astype(np.uint8)
        shot = np.asarray(cv2.LUT(shot, curve), np.uint8)
    if rng.random() < 0.35:
        quality = int(rng.integers(30, 95))
        _, packed = cv2.imencode(".jpg", shot, [cv2.IMWRITE_JPEG_QUALITY, quality])
        # Channel order is of no matter here: it comes back as it went in.
        shot = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return shot
