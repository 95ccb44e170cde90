"""LiteMedSAM's image encoder as a teacher: what the first stage of a run learns to see as it does.

From nothing, an encoder and a decoder together first learn to answer a prompt without looking at the picture, and stay
there for long. An encoder that resembles the one that the decoder was trained with is looked at from the start. This is
the decoupled distillation of MobileSAM (arXiv:2306.14289), on few images, as the teacher is slow on a CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samrt_export.families.lite_medsam import build
from samrt_export.lowering import lower
from training.recipes import Recipe

SIDE = 256  # of the images that it was trained on


@dataclass(frozen=True)
class Lesson:
    """Images and what the teacher makes of them.

    Attributes:
        images: uint8 `[B, 3, 256, 256]` RGB.
        valid: bool `[B, 1, 256, 256]`, where they are not padding.
        taught: `[B, h*w, C]`, its embeddings, averaged to the student's grid.
    """

    images: Tensor
    valid: Tensor
    taught: Tensor


class Teacher:
    """LiteMedSAM's image encoder, frozen, in half precision."""

    def __init__(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        encoder = build(state, None).sam.image_encoder
        lower(encoder, "dense")  # folds its batch norms
        self.encoder = encoder.to(device, torch.bfloat16, memory_format=torch.channels_last)

    @torch.no_grad()
    def teach(self, images: Tensor, valid: Tensor, grid: int) -> Lesson:
        """A lesson of these images for a student whose embedding has `grid` x `grid` tokens."""
        pixels = images.float()
        # LiteMedSAM's own normalisation: 0 to 1 for each image, padding 0.
        low = torch.where(valid, pixels, 255.0).amin((1, 2, 3), keepdim=True)
        high = torch.where(valid, pixels, 0.0).amax((1, 2, 3), keepdim=True)
        normalised = (pixels - low) / (high - low).clamp(min=1e-8) * valid
        features = self.encoder(normalised.to(torch.bfloat16, memory_format=torch.channels_last))
        return Lesson(images, valid, F.adaptive_avg_pool2d(features, grid).flatten(2).transpose(1, 2))


def lessons(teach: Callable[[int], Lesson], recipe: Recipe, stage: int, first: int) -> Iterator[tuple[int, Lesson]]:
    """Steps `first`, `first` + 1, ... of a stage, each with one of the stage's lessons."""
    count, steps = recipe.stages[stage].lessons, recipe.stages[stage].steps
    prepared = []
    for number in range(count if first < steps else 0):
        prepared.append(teach(number))
        print(f"\rlesson {number + 1} of {count}", end="" if number + 1 < count else "\n", file=sys.stderr, flush=True)
    for step in range(first, steps):
        yield step, prepared[int(np.random.default_rng([recipe.seed, stage, step]).integers(count))]


def imitation_loss(tokens: Tensor, lesson: Lesson) -> dict[str, Tensor]:
    """How far `[B, h*w, C]` tokens are from what was taught, padding left out.

    Returns:
        "loss", the part of the variance that is missed: 1 for the mean of all tokens everywhere.
    """
    side = round(tokens.shape[1] ** 0.5)
    weight = F.adaptive_avg_pool2d(lesson.valid.float(), side).flatten(1)[:, :, None]
    taught = lesson.taught.float()
    mean = (weight * taught).sum((0, 1)) / weight.sum()
    spread = (weight * (taught - mean) ** 2).sum()
    return {"loss": (weight * (tokens.float() - taught) ** 2).sum() / spread}
