"""Pictures that mark an object: painted or not, decided on the pixels, whatever the format."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from samrt.errors import InputError
from samrt.images.kinds import rgb_into
from samrt.images.orientation import turned
from samrt.images.picture import Picture, open_picture
from samrt.images.sources import FileSource

_HALF = 128
# Lossy formats and smooth edges blur what was black and white, but only where the two meet: within so many pixels.
_MEET = 8
# Between these, a level is neither dark nor bright. In a picture of few levels in a format without losses, such as a
# map of the objects 1 and 2, no level but 0 is dark.
_DARK, _BRIGHT, _FEW = 80, 176, 8
# The share of the painted pixels that may be in doubt.
_DOUBT = 0.05


def read_painted(source: FileSource) -> NDArray[np.bool_]:
    """bool [H, W]: where a picture is painted, that is bright and not transparent; its EXIF orientation is applied.

    A pixel's level is the largest of R, G and B as `read_image` reads them, and at most its alpha. If there is one
    level besides 0, that is the paint; otherwise the paint is what has at least half of 255.

    Raises:
        InputError: the picture cannot be read, or it is not clear what is painted.
    """
    with open_picture(source) as picture:
        levels = _levels(picture)
        name, lossless = picture.name, picture.lossless
    present = np.flatnonzero(np.bincount(levels.reshape(-1), minlength=256))
    if len(present[present > 0]) <= 1:
        return levels > 0
    dark = 1 if lossless and len(present) <= _FEW else _DARK
    near = np.ones((2 * _MEET + 1, 2 * _MEET + 1), np.uint8)
    between = [cv2.dilate(clear.view(np.uint8), near) != 0 for clear in (levels < dark, levels >= _BRIGHT)]
    doubts = (levels >= dark) & (levels < _BRIGHT) & ~(between[0] & between[1])
    share = float(doubts.sum()) / max(1, int((levels >= dark).sum()))
    painted: NDArray[np.bool_] = levels >= _HALF
    if share > _DOUBT or not painted.any():
        raise InputError(
            f"it is not clear what is painted in {name}: {share:.0%} of what is not black is neither dark nor bright "
            f"(its levels are {_described(present)} of 255); make it black, and the object white"
        )
    return painted


def _levels(picture: Picture) -> NDArray[np.uint8]:
    """uint8 [H, W], as the picture is to be seen."""
    image = picture.load()
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    rgb_into(rgb, picture, (0, 0, image.width, image.height))
    levels: NDArray[np.uint8] = rgb.max(axis=2)
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        premultiplied = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
        levels = np.minimum(levels, np.asarray(image.convert(premultiplied).convert("RGBA").getchannel("A")))
    return np.ascontiguousarray(turned(levels, picture.orientation))


def _described(levels: NDArray[np.intp]) -> str:
    if len(levels) > _FEW:
        return f"{len(levels)} between {levels[0]} and {levels[-1]}"
    return ", ".join(map(str, levels))
