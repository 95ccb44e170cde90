"""Augmentation of photographs: flips, and changes of colour, blur and noise that leave the masks valid."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def flipped(
    rng: np.random.Generator, image: NDArray[np.uint8], ids: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Mirrored, turned upside down or transposed; uint8 [H, W, 3] and [H, W]."""
    if rng.random() < 0.5:
        image, ids = image[:, ::-1], ids[:, ::-1]
    if rng.random() < 0.15:
        image, ids = image[::-1], ids[::-1]
    if rng.random() < 0.1:
        image, ids = image.transpose(1, 0, 2), ids.T
    return np.ascontiguousarray(image), np.ascontiguousarray(ids)


def disturbed(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Another exposure, white balance or contrast; at times grey, inverted, blurred or noisy. uint8 [H, W, 3] RGB."""
    if rng.random() < 0.1:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)  # type: ignore[assignment]
    if rng.random() < 0.8:
        image = cv2.LUT(image, _curve(rng))  # type: ignore[assignment]
    if rng.random() < 0.1:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5))  # type: ignore[assignment]
    if rng.random() < 0.12:
        noise = rng.normal(0, rng.uniform(2, 14), image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image


def _curve(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A table of new values for each channel: [1, 256, 3]."""
    level = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.normal(0, 0.25))
    if rng.random() < 0.04:
        level = 1 - level
    gain = np.exp(rng.normal(0, 0.18) + rng.normal(0, 0.07, 3))
    level = (level - 0.5) * np.exp(rng.normal(0, 0.15)) + 0.5 + rng.normal(0, 0.05)
    return np.clip(255 * level * gain, 0, 255).astype(np.uint8)[None]
