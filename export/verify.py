"""Comparing what will run with what the checkpoint says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from samrt.backends import Engine
from samrt.errors import ExportError
from samrt.transforms import normalize_and_pad, upscale_masks
from samrt_export.families import LoadedModel
from samrt_export.models.sam import DecoderGraph, EncoderGraph
from samrt_export.tolerances import Tolerance

Arrays = Mapping[str, NDArray[Any]]

SEED = 0


@dataclass(frozen=True)
class Reference:
    """Seeded inputs, and what the checkpoint's float32 model in torch makes of them."""

    image: NDArray[np.float32]
    embedding: NDArray[np.float32]
    prompts: dict[str, Arrays]
    outputs: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


def make_reference(loaded: LoadedModel) -> Reference:
    """Run the model in torch on a seeded image and one prompt of every kind."""
    rng = np.random.default_rng(SEED)
    image = normalize_and_pad(_seeded_image(rng, loaded.image_size), loaded.image_size, loaded.normalization)
    prompts = _seeded_prompts(rng, loaded.image_size, loaded.low_res_size)
    with torch.inference_mode():
        embedding = EncoderGraph(loaded.sam)(torch.from_numpy(image))
        decoder = DecoderGraph(loaded.sam)
        outputs = {}
        for kind, prompt in prompts.items():
            masks, iou_predictions = decoder(embedding, *(torch.from_numpy(value) for value in prompt.values()))
            outputs[kind] = (masks.numpy(), iou_predictions.numpy())
    return Reference(image, embedding.numpy(), prompts, outputs)


def compare(reference: Reference, encoder: Engine, decoder: Engine) -> dict[str, Any]:
    """The figures that tell how far the exported graphs are from the reference, prompts through both of them."""
    image_size = reference.image.shape[-1]
    embedding = encoder.run({"image": reference.image})["image_embeddings"]
    figures: dict[str, Any] = {"embedding_relative_l2": _relative_l2(embedding, reference.embedding), "prompts": {}}
    for kind, prompt in reference.prompts.items():
        outputs = decoder.run({"image_embeddings": embedding, **prompt})
        masks, iou_predictions = reference.outputs[kind]
        figures["prompts"][kind] = {
            "logits_relative_l2": _relative_l2(outputs["low_res_masks"], masks),
            "mask_iou": _lowest_iou(_masks(outputs["low_res_masks"], image_size), _masks(masks, image_size)),
            "iou_prediction": float(np.abs(outputs["iou_predictions"] - iou_predictions).max()),
        }
    return figures


def check(figures: Mapping[str, Any], tolerance: Tolerance) -> None:
    """Hold the figures against the tolerance.

    Raises:
        ExportError: one is past it, or not a number; the message says which, and by how much.
    """
    past = []
    # Written so that a NaN is past every bound.
    if not figures["embedding_relative_l2"] <= tolerance.embedding_relative_l2:
        past.append(
            f"embedding: relative L2 {figures['embedding_relative_l2']:.2g} > {tolerance.embedding_relative_l2:.2g}"
        )
    for kind, of_prompt in figures["prompts"].items():
        # Where a mask ends, NaN looks like background.
        if not math.isfinite(of_prompt["logits_relative_l2"]):
            past.append(f"{kind}: logits off by {of_prompt['logits_relative_l2']}")
        if not of_prompt["mask_iou"] >= tolerance.mask_iou:
            past.append(f"{kind}: mask IoU {of_prompt['mask_iou']:.5f} < {tolerance.mask_iou}")
        if not of_prompt["iou_prediction"] <= tolerance.iou_prediction:
            past.append(f"{kind}: predicted IoU off by {of_prompt['iou_prediction']:.2g} > {tolerance.iou_prediction}")
    if past:
        raise ExportError(
            f"the exported graphs differ from the checkpoint by more than the tolerance ({'; '.join(past)}). Nothing "
            "was written; try --precision fp32 or --lowering dense, and report it with these figures"
        )


def _seeded_image(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    # Soft shapes over noise: what a photograph has and white noise lacks.
    coarse = rng.random((8, 8, 3))
    upscaled = np.kron(coarse, np.ones((-(-size // 8), -(-size // 8), 1)))[:size, :size]
    # Three quarters high, so that the padding takes part.
    noisy = upscaled[: max(1, 3 * size // 4)] * 200 + rng.random((max(1, 3 * size // 4), size, 3)) * 55
    return noisy.astype(np.uint8)


def _seeded_prompts(rng: np.random.Generator, image_size: int, low_res: int) -> dict[str, Arrays]:
    def prompt(labels: list[list[int]], mask: bool = False) -> Arrays:
        count = len(labels)
        label = np.array(labels, np.int32)
        coords = rng.uniform(0, image_size, (*label.shape, 2)).astype(np.float32)
        coords[label == -1] = 0
        logits = rng.normal(0, 8, (count, 1, low_res // 8, low_res // 8)).astype(np.float32)
        blocks = np.kron(logits, np.ones((8, 8), np.float32)) if mask else np.zeros((count, 1, low_res, low_res))
        return {
            "point_coords": coords,
            "point_labels": label,
            "mask_input": blocks.astype(np.float32),
            "has_mask_input": np.full(count, float(mask), np.float32),
        }

    return {
        "point": prompt([[1, -1]]),
        "box": prompt([[2, 3]]),
        "points and box": prompt([[1, 0, 2, 3]]),
        "mask": prompt([[]], mask=True),
        "points and mask": prompt([[1, 0, 1, -1]], mask=True),
        "batch": prompt([[1, -1], [0, -1], [1, -1]]),
    }


def _relative_l2(value: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(value.astype(np.float64) - truth) / np.linalg.norm(truth.astype(np.float64)))


def _masks(low_res: NDArray[np.float32], image_size: int) -> NDArray[np.bool_]:
    """At the size of the model's input: of so few pixels as low-res masks have, one that rounding tips is too many."""
    size = image_size, image_size
    return upscale_masks(low_res, image_size, size, size) > 0


def _lowest_iou(masks: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    union = (masks | truth).sum(axis=(-2, -1))
    intersection = (masks & truth).sum(axis=(-2, -1))
    # Two empty masks agree.
    return float(np.where(union == 0, 1.0, intersection / np.maximum(union, 1)).min())
