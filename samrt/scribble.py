"""Scribbles: strokes on an object, turned into points and a mask prompt.

The decoder has no input for strokes. Following the iterative protocol it was trained with (Segment Anything,
arXiv:2304.02643, section 4 and appendix A), a prediction from points along the strokes is corrected where it disagrees
with them, and its logits go back in as the mask prompt, with the same points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from samrt.bundle.contract import Size
from samrt.embedding import Embedding, Region
from samrt.errors import InputError
from samrt.prompts import BACKGROUND, FOREGROUND, Prompts, add_points, past_edge

# How far from the threshold logits under a stroke are moved at least; the decoder's own are mostly 5 to 20 from it.
STROKE_LOGIT = 10.0
# Points closer than this along a stroke, in pixels, say the same thing twice.
_MIN_SPACING = 1.0

_NAMES = {FOREGROUND: "foreground", BACKGROUND: "background"}

Strokes = tuple[NDArray[np.float64], ...]
Paint = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Scribble:
    """Strokes on an object and, if it helps, on what is not the object.

    Attributes:
        foreground: polylines, each float [K, 2] (x, y) in pixels of the original image, K >= 1; or a painted mask, bool
            or uint8 [H, W] of the original image's size, nonzero where painted.
        background: the same; None where there is nothing to exclude.
        max_points: at most this many points are taken from the foreground, and as many from the background.

    Raises:
        InputError: nothing is drawn in the foreground, or a stroke is not of these forms.
    """

    foreground: Sequence[ArrayLike] | NDArray[np.bool_] | NDArray[np.uint8]
    background: Sequence[ArrayLike] | NDArray[np.bool_] | NDArray[np.uint8] | None = None
    max_points: int = 8

    def __post_init__(self) -> None:
        if isinstance(self.max_points, bool) or not isinstance(self.max_points, int) or self.max_points < 1:
            raise InputError(f"max_points of a scribble must be an integer of at least 1, not {self.max_points!r}")
        if _read_strokes("foreground", self.foreground) is None:
            raise InputError("the scribble's foreground is empty; draw at least one stroke on the object")
        if self.background is not None:
            _read_strokes("background", self.background)


def crop_scribble(scribble: Scribble, original_size: Size, region: Region) -> Scribble:
    """The scribble in pixels of a region of the image.

    Raises:
        InputError: as `scribble_points`; or a stroke leaves the region.
    """
    sides: dict[int, Any] = {FOREGROUND: None, BACKGROUND: None}
    for label, drawn in _sides(scribble, original_size):
        sides[label] = _within(drawn, region)
        if sides[label] is None:
            x0, y0, x1, y1 = region
            raise InputError(
                f"the scribble's {_NAMES[label]} leaves the region {x0},{y0},{x1},{y1} that was encoded; draw inside "
                "it, or encode a larger region"
            )
    return replace(scribble, foreground=sides[FOREGROUND], background=sides[BACKGROUND])


def _within(drawn: Strokes | Paint, region: Region) -> Strokes | Paint | None:
    """Strokes in pixels of the region; None where one leaves it."""
    x0, y0, x1, y1 = region
    if isinstance(drawn, np.ndarray):
        inside = drawn[y0:y1, x0:x1]
        return inside if np.count_nonzero(inside) == np.count_nonzero(drawn) else None
    outside = any(past_edge(line, (x0, y0), (x1, y1)).any() for line in drawn)
    return None if outside else tuple(line.clip((x0, y0), (x1, y1)) - (x0, y0) for line in drawn)


def scribble_points(scribble: Scribble, original_size: Size) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Point prompts for a scribble: evenly along polylines, spread over painted areas from the inside out.

    Returns:
        float64 [N, 2] (x, y) in pixels of the original image, and int32 [N] labels, 1 and 0.

    Raises:
        InputError: a stroke leaves the image, a painted mask has another size, or the two painted masks overlap.
    """
    coords, labels = [], []
    for label, drawn in _sides(scribble, original_size):
        if isinstance(drawn, tuple):
            points = _points_along(drawn, scribble.max_points)
        else:
            points = _points_within(drawn, scribble.max_points)
        coords.append(points)
        labels.append(np.full(len(points), label, np.int32))
    return np.concatenate(coords), np.concatenate(labels)


def correct_logits(
    logits: NDArray[np.float32],
    scribble: Scribble,
    original_size: Size,
    input_size: Size,
    image_size: int,
    *,
    threshold: float,
) -> NDArray[np.float32]:
    """Low-res logits, float32 [L, L], made clearly positive under foreground strokes and negative under the others.

    Where both kinds of stroke share a low-res pixel, it stays as predicted.
    """
    cells = {label: np.zeros(logits.shape, bool) for label in (FOREGROUND, BACKGROUND)}
    for label, drawn in _sides(scribble, original_size):
        cells[label] = _cells(drawn, original_size, input_size, image_size, logits.shape[0])
    contested = cells[FOREGROUND] & cells[BACKGROUND]
    corrected: NDArray[np.float32] = logits.copy()
    np.maximum(logits, threshold + STROKE_LOGIT, out=corrected, where=cells[FOREGROUND] & ~contested)
    np.minimum(logits, threshold - STROKE_LOGIT, out=corrected, where=cells[BACKGROUND] & ~contested)
    return corrected


def add_scribble(prompts: Prompts, scribble: Scribble, original_size: Size, region: Region) -> Prompts:
    """The one prompt in `prompts` with points along the strokes within the region, in pixels of the original image.

    Raises:
        InputError: the prompts are a batch, or the scribble does not lie in the image or has no part in the region.
    """
    if prompts.batched:
        raise InputError("a scribble is one prompt and cannot join a batch; predict them one by one")
    x0, y0, x1, y1 = region
    coords, labels = scribble_points(crop_scribble(scribble, original_size, region), (y1 - y0, x1 - x0))
    return add_points(prompts, coords + np.array([x0, y0]), labels)


def mask_prompt(
    low_res: NDArray[np.float32],
    scores: NDArray[np.float32],
    scribble: Scribble,
    embedding: Embedding,
    prompt_side: int,
    *,
    threshold: float,
) -> NDArray[np.float32]:
    """The best of one prompt's masks, [1, C, L, L] with scores [1, C], corrected under the strokes: [1, 1, L, L]."""
    corrected = correct_logits(
        low_res[0, int(np.argmax(scores[0]))],
        crop_scribble(scribble, embedding.original_size, embedding.region),
        embedding.region_size,
        embedding.input_size,
        prompt_side,
        threshold=threshold,
    )
    return corrected[None, None]


def _sides(scribble: Scribble, original_size: Size) -> list[tuple[int, Strokes | Paint]]:
    """The strokes of each label, checked against the image."""
    sides: list[tuple[int, Strokes | Paint]] = []
    for label, name in _NAMES.items():
        given = getattr(scribble, name)
        drawn = None if given is None else _read_strokes(name, given)
        if drawn is not None:
            _check_inside(name, drawn, original_size)
            sides.append((label, drawn))
    paints = [drawn for _, drawn in sides if isinstance(drawn, np.ndarray)]
    if len(paints) == 2 and (paints[0] & paints[1]).any():
        y, x = np.argwhere(paints[0] & paints[1])[0]
        raise InputError(
            f"the scribble's foreground and background overlap, for example at ({x}, {y}); erase one of them there"
        )
    return sides


def _read_strokes(name: str, drawn: object) -> Strokes | Paint | None:
    """Polylines as float64 [K, 2] each, a painted mask as bool [H, W], or None where nothing is drawn."""
    if isinstance(drawn, np.ndarray):
        if drawn.ndim != 2 or drawn.dtype not in (np.bool_, np.uint8):
            raise InputError(
                f"the scribble's {name} is an array {drawn.dtype} {list(drawn.shape)}: a painted mask must be bool or "
                "uint8 [H, W]; put polylines [K, 2] in a list"
            )
        paint: Paint = drawn != 0
        return paint if paint.any() else None
    if not isinstance(drawn, (list, tuple)):
        raise InputError(
            f"the scribble's {name} must be a list of polylines or a painted mask, not {type(drawn).__name__}"
        )
    return tuple(_read_polyline(name, line) for line in drawn) or None


def _read_polyline(name: str, line: ArrayLike) -> NDArray[np.float64]:
    try:
        points = np.asarray(line, np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(f"a polyline of the scribble's {name} is not numbers ({error}); give [K, 2] (x, y)") from error
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise InputError(
            f"a polyline of the scribble's {name} must have the shape [K, 2] with K >= 1, not {list(points.shape)}; "
            "give a list of such polylines"
        )
    if not np.isfinite(points).all():
        raise InputError(f"a polyline of the scribble's {name} contains NaN or infinity; remove those points")
    return points


def _check_inside(name: str, drawn: Strokes | Paint, original_size: Size) -> None:
    height, width = original_size
    if isinstance(drawn, np.ndarray):
        if drawn.shape != original_size:
            raise InputError(
                f"the scribble's {name} is painted on {drawn.shape[1]}x{drawn.shape[0]}, the image is {width}x{height} "
                "(width x height); paint on the original image's size"
            )
        return
    for line in drawn:
        for x, y in line[past_edge(line, (0, 0), (width, height))][:1]:
            raise InputError(
                f"the scribble's {name} leaves the image of {width}x{height} (width x height) at ({x:g}, {y:g}); "
                "give (x, y) in pixels of the original image"
            )


def _points_along(lines: Strokes, max_points: int) -> NDArray[np.float64]:
    """At most `max_points` points, evenly spaced along each line; one per line if there are too many lines."""
    lengths = np.array([_arc(line)[-1] for line in lines])
    counts = np.zeros(len(lines), int)
    counts[np.argsort(-lengths, kind="stable")[:max_points]] = 1
    for _ in range(max_points - len(lines)):
        longest = np.argmax(lengths / counts)
        if lengths[longest] < _MIN_SPACING * (counts[longest] + 1):
            break
        counts[longest] += 1
    # Each point stands in the middle of its share, so none lies on a stroke's end, where it may leave the object.
    return np.concatenate(
        [_at(line, (np.arange(n) + 0.5) / n * _arc(line)[-1]) for line, n in zip(lines, counts, strict=True) if n]
    )


def _points_within(paint: Paint, max_points: int) -> NDArray[np.float64]:
    """At most `max_points` painted pixels: the innermost, then again and again the one farthest from those chosen.

    Only pixels on the ridge of the distance transform are considered, and distance is counted from the rim of the
    largest disc around a chosen pixel, so a stroke gets points along its middle and a blob does with one.
    """
    # The border of the image bounds a painted area too.
    framed = np.pad(paint.astype(np.uint8), 1)
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Away from the ridge a neighbour is deeper by about 1; along the middle of a stroke only by a rounding.
    ridge = (depth > 0) & (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8)) - 0.5)
    # A pixel that sticks out of the rim is a ridge too, but not a deep one.
    ridge &= depth >= cv2.dilate(depth, np.ones((5, 5), np.uint8)) / 2
    pixels = np.argwhere(ridge).astype(np.float64)
    radius = depth[ridge]
    chosen = [int(np.argmax(radius))]
    gap = np.full(len(pixels), np.inf)
    while len(chosen) < max_points:
        gap = np.minimum(gap, np.hypot(*(pixels - pixels[chosen[-1]]).T) - radius[chosen[-1]])
        farthest = int(np.argmax(gap))
        if gap[farthest] <= 0:
            break
        chosen.append(farthest)
    return pixels[chosen][:, ::-1] - 1


def _cells(
    drawn: Strokes | Paint, original_size: Size, input_size: Size, image_size: int, low_res_size: int
) -> NDArray[np.bool_]:
    """The pixels of the low-res mask that the strokes touch, bool [L, L]."""
    # Low-res pixels per pixel of the original image, (y, x).
    scale = np.array(input_size) / original_size * low_res_size / image_size
    cells = np.zeros((low_res_size, low_res_size), np.bool_)
    last = -(-np.array(input_size) * low_res_size // image_size) - 1
    if isinstance(drawn, np.ndarray):
        touched = np.argwhere(drawn)
        # A small image is stretched: one of its pixels covers many low-res ones, found from their side.
        rows, columns = (
            np.minimum(((np.arange(n + 1) + 0.5) / s).astype(int), size - 1)
            for n, s, size in zip(last, scale, original_size, strict=True)
        )
        cells[: last[0] + 1, : last[1] + 1] = drawn[np.ix_(rows, columns)]
    else:
        step = 0.5 / scale.max()
        walks = (_at(line, np.linspace(0, _arc(line)[-1], 1 + int(np.ceil(_arc(line)[-1] / step)))) for line in drawn)
        touched = np.concatenate(list(walks))[:, ::-1]
    y, x = np.minimum((touched + 0.5) * scale, last).astype(int).T
    cells[y, x] = True
    return cells


def _arc(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length of a polyline up to each of its points."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])


def _at(line: NDArray[np.float64], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """The points of a polyline at the given lengths along it."""
    arc = _arc(line)
    return np.stack([np.interp(lengths, arc, line[:, axis]) for axis in (0, 1)], axis=1)
