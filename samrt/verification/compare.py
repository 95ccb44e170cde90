"""Comparing what will run with a reference, on a seeded scene and one prompt of every kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.bundle.contract import Contract, Geometry
from samrt.bundle.precisions import Tolerance
from samrt.geometry import normalize_and_pad

Arrays = Mapping[str, NDArray[Any]]
# A graph as a function: named arrays in, named arrays out.
Run = Callable[[Arrays], Arrays]

SEED = 0


@dataclass(frozen=True)
class Reference:
    """Seeded inputs, and what the reference's encoder and decoder make of them."""

    image: NDArray[np.float32]
    features: Arrays
    prompts: dict[str, Arrays]
    outputs: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    threshold: np.float32  # logits above it are mask


def make_reference(contract: Contract, encoder: Run, decoder: Run) -> Reference:
    """Run the reference on a seeded image and one prompt of every kind."""
    rng, geometry = np.random.default_rng(SEED), contract.geometry
    image = normalize_and_pad(_seeded_image(rng, geometry), geometry)
    prompts = _seeded_prompts(rng, geometry.prompt_side, geometry.low_res_side)
    features = encoder({"image": image})
    outputs = {}
    for kind, prompt in prompts.items():
        of_prompt = decoder({**features, **prompt})
        outputs[kind] = (of_prompt["low_res_masks"], of_prompt["iou_predictions"])
    return Reference(image, features, prompts, outputs, np.float32(contract.masks.threshold))


def compare(reference: Reference, encoder: Run, decoder: Run, tolerance: Tolerance) -> dict[str, Any]:
    """The figures that tell how far two graphs are from the reference, prompts through both of them."""
    features = encoder({"image": reference.image})
    errors = [_relative_l2(features[name], truth) for name, truth in reference.features.items()]
    # Of the worst feature; np.max, unlike max, never loses a NaN.
    figures: dict[str, Any] = {"embedding_relative_l2": float(np.max(errors)), "prompts": {}}
    for kind, prompt in reference.prompts.items():
        outputs = decoder({**features, **prompt})
        masks, iou_predictions = reference.outputs[kind]
        figures["prompts"][kind] = {
            "logits_relative_l2": _relative_l2(outputs["low_res_masks"], masks),
            "mask_iou": _lowest_iou(
                outputs["low_res_masks"] - reference.threshold, masks - reference.threshold, tolerance.logit_rounding
            ),
            "iou_prediction": float(np.abs(outputs["iou_predictions"] - iou_predictions).max()),
        }
    return figures


def past_tolerance(figures: Mapping[str, Any], tolerance: Tolerance) -> list[str]:
    """The figures that are past the tolerance, or not numbers: which, and by how much."""
    past = []
    # Written so that a NaN is past every bound.
    if not figures["embedding_relative_l2"] <= tolerance.embedding_relative_l2:
        past.append(
            f"embedding: relative L2 {figures['embedding_relative_l2']:.2g} > {tolerance.embedding_relative_l2:.2g}"
        )
    for kind, of_prompt in figures["prompts"].items():
        logits = of_prompt["logits_relative_l2"]
        if not logits <= tolerance.logits_relative_l2:
            past.append(f"{kind}: logits: relative L2 {logits:.2g} > {tolerance.logits_relative_l2:.2g}")
        if not of_prompt["mask_iou"] >= tolerance.mask_iou:
            past.append(f"{kind}: mask IoU {of_prompt['mask_iou']:.5f} < {tolerance.mask_iou}")
        if not of_prompt["iou_prediction"] <= tolerance.iou_prediction:
            past.append(f"{kind}: predicted IoU off by {of_prompt['iou_prediction']:.2g} > {tolerance.iou_prediction}")
    return past


# Ellipses on the seeded image: centre x, y and radii x, y, in fractions of its side.
_OBJECTS = np.array([(0.28, 0.33, 0.15, 0.12), (0.70, 0.30, 0.13, 0.20), (0.47, 0.58, 0.11, 0.11)])
_HEIGHT = 0.75  # of the image, so that the padding takes part


def _seeded_image(rng: np.random.Generator, geometry: Geometry) -> NDArray[np.uint8]:
    """Bright ellipses on a dark slope, with noise: something that a trained model can segment."""
    size = geometry.encoder_side
    height = size if geometry.resize == "square" else max(1, int(_HEIGHT * size))
    image = np.linspace(30, 90, size)[None, :, None] * rng.uniform(0.5, 1, 3) * np.ones((height, 1, 1))
    for box in _OBJECTS:
        image[_ellipse(box, size)[:height]] = rng.uniform(130, 230, 3)
    return (image + rng.uniform(-12, 12, image.shape)).clip(0, 255).astype(np.uint8)


def _ellipse(of: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    centre_x, centre_y, radius_x, radius_y = of
    position = (np.arange(size) + 0.5) / size
    inside: NDArray[np.bool_] = ((position - centre_x) / radius_x) ** 2 + (
        (position[:, None] - centre_y) / radius_y
    ) ** 2 <= 1
    return inside


def _seeded_prompts(rng: np.random.Generator, side: int, low_res: int) -> dict[str, Arrays]:
    centres = _OBJECTS[:, :2] * side
    corners = np.stack([_OBJECTS[:, :2] - _OBJECTS[:, 2:], _OBJECTS[:, :2] + _OBJECTS[:, 2:]], axis=1) * side
    outside = np.array([(0.05, 0.05)]) * side
    padding = np.zeros((1, 2))
    # Roughly the first object, as an earlier prediction would have it.
    logits = np.where(_ellipse(_OBJECTS[0], low_res), 8, -8) + rng.normal(0, 2, (low_res, low_res))

    def prompt(coords: Sequence[NDArray[np.float64]], labels: list[list[int]], mask: bool = False) -> Arrays:
        count = len(labels)
        return {
            "point_coords": np.concatenate([*coords, np.zeros((0, 2))]).reshape(count, -1, 2).astype(np.float32),
            "point_labels": np.array(labels, np.int32).reshape(count, -1),
            "mask_input": np.broadcast_to(logits * mask, (count, 1, low_res, low_res)).astype(np.float32),
            "has_mask_input": np.full(count, mask, np.float32),
        }

    return {
        "point": prompt([centres[:1], padding], [[1, -1]]),
        "box": prompt([corners[1]], [[2, 3]]),
        "points and box": prompt([centres[2:], outside, corners[2]], [[1, 0, 2, 3]]),
        "mask": prompt([], [[]], mask=True),
        "points and mask": prompt([centres[:1], outside, padding], [[1, 0, -1]], mask=True),
        "batch": prompt([*corners], [[2, 3], [2, 3], [2, 3]]),
    }


def _relative_l2(value: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(value.astype(np.float64) - truth) / np.linalg.norm(truth.astype(np.float64)))


def _lowest_iou(logits: NDArray[np.float32], truth: NDArray[np.float32], rounding: float) -> float:
    """Of the masks above 0, each with its own; both `[..., L, L]`."""
    expected = truth > 0
    # A logit that is zero but for rounding is right on either side, and of a small mask one pixel is too many.
    undecided = np.abs(truth) <= rounding * np.sqrt(
        np.mean(np.square(truth, dtype=np.float64), axis=(-2, -1), keepdims=True)
    )
    masks = np.where(undecided, expected, logits > 0)
    union = (masks | expected).sum(axis=(-2, -1))
    intersection = (masks & expected).sum(axis=(-2, -1))
    # Two empty masks agree.
    return float(np.where(union == 0, 1.0, intersection / np.maximum(union, 1)).min())
