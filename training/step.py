"""The gradients of one step, on a batch as a whole or, where the device's memory is too small for that, in parts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import fields, replace

import torch
from torch import Tensor

from training.grouping import grouping_loss
from training.model import PromptableModel
from training.recipes import Stage
from training.rounds import Objects, run_rounds
from training.samples import Batch


class Gradients:
    """Computes gradients, and remembers for each stage in how many parts a batch fits into the memory.

    A batch in parts gives the gradients of the whole, but for rounding and other points of correction.
    """

    def __init__(self, device: torch.device) -> None:
        self.parts: dict[Stage, int] = {}
        self._device = device

    def __call__(
        self, model: PromptableModel, batch: Batch, generator: torch.Generator, stage: Stage
    ) -> dict[str, Tensor]:
        """Leave the gradients of a batch's loss on the model's parameters; returns the loss and means to watch.

        Raises:
            torch.OutOfMemoryError: a single image does not fit.
        """
        while True:
            parts = self.parts.get(stage, 1)
            try:
                return self._in_parts(model, batch, generator, stage, parts)
            except torch.OutOfMemoryError:
                if parts >= len(batch.images):
                    raise
            # Here the error, which holds what the step had allocated, is gone.
            self.parts[stage] = min(2 * parts, len(batch.images))
            print(
                f"training: a batch at {stage.side} pixels does not fit into the memory; in {self.parts[stage]} parts",
                file=sys.stderr,
            )
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _in_parts(
        self, model: PromptableModel, batch: Batch, generator: torch.Generator, stage: Stage, parts: int
    ) -> dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        found: list[dict[str, Tensor]] = []
        for part in split(batch, parts):
            with torch.autocast(self._device.type, torch.bfloat16):
                objects = encode_batch(model, part, self._device)
                if stage.task == "grouping":
                    figures = grouping_loss(objects, stage.side, stage.objects)
                else:
                    figures = run_rounds(model, objects, part.rounds, generator, stage)
            weight = len(part.images) / len(batch.images)
            (figures["loss"] * weight).backward()
            found.append({name: value.detach() for name, value in figures.items()})
        if len(found) == 1:
            return found[0]
        # A part without boxes has no figure for them.
        return {name: torch.stack([each[name] for each in found]).nanmean() for name in found[0]}


def split(batch: Batch, parts: int) -> Iterator[Batch]:
    """The batch's images with their objects, in so many parts of nearly the same size."""
    images = len(batch.images)
    for part in range(parts):
        chosen = slice(part * images // parts, (part + 1) * images // parts)
        arrays = {field.name: getattr(batch, field.name)[chosen] for field in fields(batch) if field.name != "rounds"}
        yield replace(batch, **arrays)


def encode_batch(model: PromptableModel, batch: Batch, device: torch.device) -> Objects:
    """Encode each image once, and pair every object with its image's tokens."""
    # Copied before the encoder is started, as a copy to a GPU waits for what was started before it.
    targets, points, boxes, boxed = (
        torch.from_numpy(array).to(device).flatten(0, 1)
        for array in (batch.targets, batch.points, batch.boxes, batch.boxed)
    )
    tokens = model.encode(*images_of(batch, device))
    return Objects(tokens.repeat_interleave(batch.points.shape[1], 0), targets.float() / 255, points, boxes, boxed)


def images_of(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """The images, uint8 `[B, 3, S, S]`, and where they are not padding, bool `[B, 1, S, S]`."""
    images = torch.from_numpy(batch.images).to(device)
    line = torch.arange(images.shape[-1], device=device)
    sizes = torch.from_numpy(batch.sizes).to(device)
    valid = (line[None, :, None] < sizes[:, 0, None, None]) & (line < sizes[:, 1, None, None])
    return images, valid[:, None]
