"""Prompts: what a user gives (points, boxes, mask inputs), checked once and packed into the decoder's inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samrt.bundle.contract import Size
from samrt.embedding import Embedding, Region
from samrt.errors import InputError, Remedy
from samrt.geometry import scale_coords

BACKGROUND, FOREGROUND, PADDING = 0, 1, -1
# The decoder knows a box by its two corners.
_BOX_CORNERS = (2, 3)
# How many pixels past the edge a point or a box counts as on it. Detectors round, and count the last pixel or not.
_PAST_EDGE = 1.0


@dataclass(frozen=True, eq=False)
class Prompts:
    """B prompts for one image, of consistent shapes; None where a kind of prompt is not used.

    Attributes:
        point_coords: float64 [B, N, 2], (x, y).
        point_labels: int32 [B, N]; 1 foreground, 0 background, -1 padding.
        boxes: float64 [B, 4], x0, y0, x1, y1.
        mask_input: float32 [B, 1, L, L], logits.
        batched: whether the user gave a batch; if not, B is 1.
    """

    point_coords: NDArray[np.float64] | None
    point_labels: NDArray[np.int32] | None
    boxes: NDArray[np.float64] | None
    mask_input: NDArray[np.float32] | None
    batched: bool

    @property
    def count(self) -> int:
        """Number of prompts B; 1 where nothing is given, as in Meta's prompt encoder."""
        given = (self.point_coords, self.boxes, self.mask_input)
        return next((len(array) for array in given if array is not None), 1)


def read_prompts(
    point_coords: ArrayLike | None,
    point_labels: ArrayLike | None,
    box: ArrayLike | None,
    mask_input: ArrayLike | None,
    low_res_size: int,
) -> Prompts:
    """Check shapes, types and values; `fit_geometry` checks where they lie. An empty list is no prompt of its kind.

    Args:
        point_coords: [N, 2] or, for B prompts, [B, N, 2]; (x, y).
        point_labels: [N] or [B, N]; 1 foreground, 0 background, -1 padding in a batch of unequal counts.
        box: [4] or [B, 4]; x0, y0, x1, y1.
        mask_input: [1, L, L] or [B, 1, L, L]; logits of an earlier prediction.
        low_res_size: side L of the model's mask inputs.

    Raises:
        InputError: the message says which argument is wrong and what it should be.
    """
    batched: dict[str, bool] = {}
    coords = _read("point_coords", point_coords, ("N", 2), batched)
    labels = _read("point_labels", point_labels, ("N",), batched, kinds="fiub")
    if coords is None and labels is not None and labels.size == 0:
        labels = None
        del batched["point_labels"]
    boxes = _read("box", box, (4,), batched)
    masks = _read("mask_input", mask_input, (1, low_res_size, low_res_size), batched)
    if (coords is None) != (labels is None):
        given, missing = ("point_labels", "point_coords") if coords is None else ("point_coords", "point_labels")
        raise InputError(f"{given} without {missing}; give both: one label (1 foreground, 0 background) for each point")
    if len(set(batched.values())) > 1:
        kinds = ", ".join(f"{name} is {'a batch' if many else 'one prompt'}" for name, many in batched.items())
        raise InputError(f"one prompt and a batch are mixed: {kinds}; give all of them with a first axis B, or none")
    if coords is not None and labels is not None:
        if coords.shape[:2] != labels.shape:
            raise InputError(
                f"point_coords {_plain(coords, batched)} and point_labels {_plain(labels, batched)} differ in count; "
                "give one label for each point"
            )
        if not np.isin(labels, (FOREGROUND, BACKGROUND, PADDING)).all():
            raise InputError("point_labels must be 1 (foreground), 0 (background) or -1 (padding); use `box` for a box")
    counts = {len(array) for array in (coords, boxes, masks) if array is not None}
    if len(counts) > 1:
        raise InputError(f"the prompts' batch sizes {sorted(counts)} differ; give the same number B of each kind")
    if 0 in counts:
        raise InputError("the batch of prompts is empty; give at least one prompt")
    return Prompts(
        point_coords=None if coords is None else coords.astype(np.float64),
        point_labels=None if labels is None else labels.astype(np.int32),
        boxes=None if boxes is None else boxes.astype(np.float64),
        mask_input=None if masks is None else masks.astype(np.float32),
        batched=any(batched.values()),
    )


def add_points(prompts: Prompts, coords: NDArray[np.float64], labels: NDArray[np.int32]) -> Prompts:
    """Append points, float64 [N, 2] with labels int32 [N], to the one prompt in `prompts`."""
    if prompts.point_coords is not None and prompts.point_labels is not None:
        coords = np.concatenate([prompts.point_coords[0], coords])
        labels = np.concatenate([prompts.point_labels[0], labels])
    return replace(prompts, point_coords=coords[None], point_labels=labels[None])


def fit_geometry(prompts: Prompts, original_size: Size, region: Region | None = None, *, clip: bool = False) -> Prompts:
    """Check that there is something to find, and that it lies in the image of `original_size`, or in its `region`.

    Points and boxes up to a pixel past the edge are moved onto it; with `clip`, boxes that reach further are too. A
    point further out is none of a smaller object, as a box is, so it is refused.

    Raises:
        InputError: an empty prompt, a point or a box outside the image or the region, an inverted box or one without
            area.
    """
    height, width = original_size
    x0, y0, x1, y1 = region or (0, 0, width, height)
    if (x1 - x0, y1 - y0) == (width, height):
        inside = f"the image of {width}x{height} (width x height)"
    else:
        inside = f"the region {x0},{y0},{x1},{y1} that was encoded"
    low, high = np.array([x0, y0]), np.array([x1, y1])
    used = np.zeros((prompts.count, 0), bool)
    coords, boxes = prompts.point_coords, prompts.boxes
    if coords is not None and prompts.point_labels is not None:
        used = prompts.point_labels != PADDING
        for prompt, point in np.argwhere(used & past_edge(coords, low, high))[:1]:
            x, y = coords[prompt, point]
            raise InputError(
                f"the point ({x:g}, {y:g}){_index(prompts, prompt)} lies outside {inside}; give (x, y) in pixels of "
                "the original image"
            )
        coords = np.where(used[..., None], coords.clip(low, high), coords)
    if boxes is not None:
        corners = boxes.reshape(-1, 2, 2)
        clipped = corners.clip(low, high)
        far = np.zeros(corners.shape[:2], bool) if clip else past_edge(corners, low, high)
        cut_off = Remedy("have it cut off there with {clip}", {"clip": True})
        for wrong, problem, remedy in (
            ((corners[:, 0] > corners[:, 1]), "is inverted; order it as x0, y0, x1, y1 with x0 < x1 and y0 < y1", None),
            ((corners[:, 0] == corners[:, 1]), "has no area; give x0 < x1 and y0 < y1, or use a point instead", None),
            ((clipped[:, 0] == clipped[:, 1]), f"lies outside {inside}; leave it out", None),
            (far, f"reaches outside {inside}", cut_off),
        ):
            for index in np.flatnonzero(wrong.any(axis=1))[:1]:
                raise InputError(f"the box {_listed(boxes[index])}{_index(prompts, index)} {problem}", remedy)
        boxes = clipped.reshape(-1, 4)
    elif prompts.mask_input is None and not used.any(axis=1).all():
        raise InputError(
            "the prompt is empty, or one of the batch is; give each a point, a box, a mask_input or a scribble"
        )
    return replace(prompts, point_coords=coords, boxes=boxes)


def past_edge(coords: NDArray[np.float64], low: ArrayLike, high: ArrayLike) -> NDArray[np.bool_]:
    """Which of the points [..., 2] lie more than a pixel outside `low` to `high`; the others count as on the edge."""
    return np.asarray((abs(coords - np.clip(coords, low, high)) > _PAST_EDGE).any(axis=-1), np.bool_)


def to_input_frame(prompts: Prompts, embedding: Embedding) -> Prompts:
    """Move points and boxes from pixels of the original image to the prompts' frame of what was encoded."""
    x0, y0, _, _ = embedding.region
    coords, boxes = prompts.point_coords, prompts.boxes
    sizes = embedding.region_size, embedding.input_size
    if coords is not None:
        coords = scale_coords(coords - (x0, y0), *sizes)
    if boxes is not None:
        boxes = scale_coords(boxes.reshape(-1, 2, 2) - (x0, y0), *sizes).reshape(-1, 4)
    return replace(prompts, point_coords=coords, boxes=boxes)


def decoder_inputs(prompts: Prompts, low_res_size: int) -> dict[str, NDArray[Any]]:
    """The decoder's inputs without the image's; `prompts` are in the prompts' frame.

    The tokens are those of Meta's `PromptEncoder`: the points, then one padding point if there is no box, then the
    corners of the box. A prompt of a mask alone has no tokens.
    """
    count = prompts.count
    coords, labels = [np.zeros((count, 0, 2))], [np.zeros((count, 0), np.int32)]
    if prompts.point_coords is not None and prompts.point_labels is not None:
        coords.append(prompts.point_coords)
        labels.append(prompts.point_labels)
        if prompts.boxes is None:
            coords.append(np.zeros((count, 1, 2)))
            labels.append(np.full((count, 1), PADDING, np.int32))
    if prompts.boxes is not None:
        coords.append(prompts.boxes.reshape(count, 2, 2))
        labels.append(np.tile(np.array(_BOX_CORNERS, np.int32), (count, 1)))
    masks = prompts.mask_input
    if masks is None:
        # A view of one zero: a large batch is cut into pieces before these are needed.
        masks = np.broadcast_to(np.float32(0), (count, 1, low_res_size, low_res_size))
    return {
        "point_coords": np.concatenate(coords, axis=1).astype(np.float32),
        "point_labels": np.concatenate(labels, axis=1),
        "mask_input": masks,
        "has_mask_input": np.full(count, prompts.mask_input is not None, np.float32),
    }


def _read(
    name: str,
    value: ArrayLike | None,
    shape: tuple[int | str, ...],
    batched: dict[str, bool],
    kinds: str = "fiu",
) -> NDArray[Any] | None:
    """`value` with a batch axis; whether it came with one goes into `batched`. A string in `shape` is any length.

    None for None, and for what is empty without being a batch: `[]`, `[[]]`, `np.zeros((0, 2))`.
    """
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        # Ragged lists, tensors on another device, ...
        raise InputError(f"{name} cannot be turned into a numpy array ({error}); pass numbers on the CPU") from error
    if array.size == 0 and array.ndim <= len(shape):
        return None
    if array.dtype.kind not in kinds:
        raise InputError(f"{name} must be numbers, not {array.dtype}; convert it with .astype(float)")
    batched[name] = array.ndim == len(shape) + 1
    one = array.shape[1:] if batched[name] else array.shape
    fits = len(one) == len(shape) and all(isinstance(n, str) or n == m for n, m in zip(shape, one, strict=True))
    if not fits:
        written = ", ".join(map(str, shape))
        raise InputError(f"{name} must have the shape [{written}] or [B, {written}], not {list(array.shape)}")
    # As the decoder takes them; what overflows becomes infinity.
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype(np.float32)).all()
    if not finite:
        raise InputError(f"{name} contains NaN or infinity, or numbers too large for float32; remove those values")
    return array if batched[name] else array[None]


def _plain(array: NDArray[Any], batched: dict[str, bool]) -> list[int]:
    return list(array.shape if batched["point_coords"] else array.shape[1:])


def _index(prompts: Prompts, index: int) -> str:
    return f" at index {index} of {prompts.count}" if prompts.batched else ""


def _listed(box: NDArray[np.float64]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"
