"""Score weights on the held-out photographs of the training sets, and on drawn scenes that no step has drawn.

    python -m training.validate training/runs/trunk/model.pth --data .cache/packed.npz --side 256

Prints a line of JSON for each data set: means over its objects. "other" is a box's IoU with the embedding of another
image. If it is nearly as high as "box", the model ignores the image.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samrt.errors import InputError, SamrtError
from samrt_export.checkpoint import read_checkpoint
from training.held_out import held_out
from training.losses import true_iou
from training.model import PromptableModel
from training.pack import unpack
from training.rounds import Objects, correction, first_prompts
from training.samples import Batch, coverage, innermost, letterboxed, tight_box
from training.scenes import scene
from training.step import encode_batch

HELD_OUT = 12  # photographs of each data set
_OBJECTS, _SCENES, _TOGETHER, _SMALLEST = 8, 24, 4, 2e-4
_SEED = 2222
Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", metavar="FILE.pth", type=Path)
    parser.add_argument("--data", type=Path, required=True, metavar="PACKED.npz")
    parser.add_argument("--side", type=int, default=256)
    arguments = parser.parse_args()
    try:
        scores = validate(read_checkpoint(arguments.weights).state, arguments.data, arguments.side)
    except SamrtError as error:
        print(f"training.validate: {error}", file=sys.stderr)
        return 1
    for name, means in scores.items():
        print(json.dumps({"set": name, **means}))
    return 0


def validate(state: Mapping[str, Tensor], data: Path, side: int) -> dict[str, dict[str, float | None]]:
    """Means over the objects of each data set, of the photographs, and of the drawn scenes.

    Raises:
        BundleError: the weights are of no model that is trained here.
        InputError: a data set has too few photographs to score.
    """
    model = PromptableModel(state, side).requires_grad_(False)
    found = {
        name: _scores(model, name, [(each.image, each.id_maps[0]) for each in pictures])
        for name, pictures in held_out(unpack(data), HELD_OUT).items()
    }
    rng = np.random.default_rng(_SEED)
    drawn = _scores(model, "scenes", [scene(rng, side) for _ in range(_SCENES)])
    photographs = {name: np.concatenate([each[name] for each in found.values()]) for name in drawn}
    return {name: _means(each) for name, each in {**found, "photographs": photographs, "scenes": drawn}.items()}


def _means(scores: dict[str, NDArray[np.float64]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {
        name: round(float(np.mean(values)), 4) for name, values in scores.items() if name[0] != "_"
    }
    for kind in ("box", "point"):
        # Of numbers that do not vary there is none, and JSON has no word for NaN.
        with np.errstate(divide="ignore", invalid="ignore"):
            correlation = float(np.corrcoef(scores[kind], scores[f"_{kind}_said"])[0, 1])
        means[f"correlation_{kind}"] = round(correlation, 3) if np.isfinite(correlation) else None
    return {"objects": len(scores["box"]), **means}


def _scores(model: PromptableModel, name: str, pictures: list[Labelled]) -> dict[str, NDArray[np.float64]]:
    parts = [_scored(model, batch) for batch in _batches(pictures, model.side)]
    if not parts:
        raise InputError(f"{name} has fewer than {_TOGETHER} pictures to score, of {len(pictures)} that it has")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _batches(pictures: list[Labelled], side: int) -> Iterator[Batch]:
    """Whole pictures as they are, with the same objects each time; the last few, short of a batch, are left."""
    rng = np.random.default_rng(_SEED)
    samples = []
    for picture in pictures:
        image, ids = letterboxed(*picture, side)
        labels = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[1:] >= _SMALLEST * side**2) + 1
        if not labels.size:
            continue
        masks = [(ids == label).astype(np.uint8) for label in rng.choice(labels, _OBJECTS)]
        padded = np.zeros((3, side, side), np.uint8)
        padded[:, : image.shape[0], : image.shape[1]] = image.transpose(2, 0, 1)
        targets = np.stack([coverage(mask, side, side // 2) for mask in masks])
        points = np.stack([innermost(mask) for mask in masks])
        boxes = np.stack([np.array(tight_box(mask), np.float32) for mask in masks])
        samples.append((padded, np.array(image.shape[:2]), targets, points, boxes))
    for first in range(0, len(samples) - _TOGETHER + 1, _TOGETHER):
        arrays = [np.stack(each) for each in zip(*samples[first : first + _TOGETHER], strict=True)]
        yield Batch(*arrays, np.ones((_TOGETHER, _OBJECTS), bool), rounds=1)


@torch.no_grad()
def _scored(model: PromptableModel, batch: Batch) -> dict[str, NDArray[np.float64]]:
    with torch.autocast("cpu", torch.bfloat16):
        objects = encode_batch(model, batch, torch.device("cpu"))
        return {name: values.double().numpy() for name, values in _asked(model, objects).items()}


def _asked(model: PromptableModel, objects: Objects) -> dict[str, Tensor]:
    boxes = _with_boxes(objects, True)
    logits, said, quality = _decode(model, objects, *first_prompts(boxes), None)
    scores = {"box": quality[:, 0], "_box_said": said[:, 0], "stable_box": _stability(logits[:, 0])}
    others = Objects(objects.tokens.roll(_OBJECTS, 0), *list(vars(boxes).values())[1:])
    scores["other"] = _decode(model, others, *first_prompts(boxes), None)[2][:, 0]
    scores["ellipse"] = true_iou(_ellipses(objects, model.side)[:, None], objects.targets)[:, 0]
    points, labels = first_prompts(_with_boxes(objects, False))
    logits, said, quality = _decode(model, objects, points, labels, None)
    answer = said[:, 1:].argmax(1, keepdim=True) + 1
    scores["point"], scores["_point_said"] = quality.gather(1, answer)[:, 0], said.gather(1, answer)[:, 0]
    scores["oracle"] = quality[:, 1:].max(1).values
    mask = logits.gather(1, answer[..., None, None].expand(-1, 1, *logits.shape[2:]))
    scores["stable_point"] = _stability(mask[:, 0])
    generator = torch.Generator().manual_seed(_SEED)
    for _ in range(2):
        point, label = correction(mask[:, 0], objects.targets, model.side, generator)
        points, labels = torch.cat([points, point[:, None]], 1), torch.cat([labels, label[:, None]], 1)
        logits, said, quality = _decode(model, objects, points, labels, mask.clamp(-32, 32))
        mask = logits[:, :1]
    scores["point3"] = quality[:, 0]
    return scores


def _with_boxes(objects: Objects, boxed: bool) -> Objects:
    return Objects(
        objects.tokens, objects.targets, objects.points, objects.boxes, torch.full_like(objects.boxed, boxed)
    )


def _decode(
    model: PromptableModel, objects: Objects, points: Tensor, labels: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, predicted and true IoU."""
    logits, said = model.decode(objects.tokens, points, labels, mask)
    return logits, said, true_iou(logits, objects.targets)


def _stability(logits: Tensor) -> Tensor:
    """SAM's stability score at an offset of 1."""
    return (logits > 1).sum((1, 2)) / (logits > -1).sum((1, 2)).clamp(min=1)


def _ellipses(objects: Objects, side: int) -> Tensor:
    """Positive inside the ellipse that a box holds: `[P, L, L]`."""
    length = objects.targets.shape[-1]
    x0, y0, x1, y1 = (objects.boxes + torch.tensor([0, 0, 1, 1])).mul(length / side)[..., None, None].unbind(1)
    line = torch.arange(length) + 0.5
    across = (line[None, None, :] - (x0 + x1) / 2) / ((x1 - x0) / 2)
    down = (line[None, :, None] - (y0 + y1) / 2) / ((y1 - y0) / 2)
    return 1 - across**2 - down**2


if __name__ == "__main__":
    sys.exit(main())
