"""Meta's module of this name."""

from __future__ import annotations

from samrt.compat.segment_anything.absent import absent

SamAutomaticMaskGenerator = absent(
    "SamAutomaticMaskGenerator",
    "masks of everything in an image cannot be made yet. SamPredictor makes masks of points and boxes",
)
