"""LiteMedSAM's released weights on photographs of fruit: what the exported bundle makes of boxes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from absent import absent
from numpy.typing import NDArray

import samrt

REQUIRED = 0.90

Mask = NDArray[np.bool_]


@pytest.fixture(scope="module")
def fruit(data_dir: Path) -> Path:
    folder = data_dir / "eval" / "fruit"
    if not folder.is_dir():
        absent(f"no evaluation data in {folder}")
    return folder


def instances(id_map: Path) -> NDArray[np.bool_]:
    """The instances of a PNG of ids, 0 unlabelled: bool `[N, H, W]`."""
    ids = cv2.imread(str(id_map), cv2.IMREAD_UNCHANGED)
    assert ids is not None
    return np.stack([ids == i for i in np.unique(ids) if i != 0])


def tight_box(mask: Mask) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 from the first to the last pixel, both included."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def filled(box: tuple[int, int, int, int], like: Mask) -> Mask:
    x0, y0, x1, y1 = box
    mask = np.zeros_like(like)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def ellipse(box: tuple[int, int, int, int], like: Mask) -> Mask:
    x0, y0, x1, y1 = box
    y, x = np.ogrid[: like.shape[0], : like.shape[1]]
    across, down = (x - (x0 + x1) / 2) / ((x1 - x0 + 1) / 2), (y - (y0 + y1) / 2) / ((y1 - y0 + 1) / 2)
    inside: Mask = across**2 + down**2 <= 1
    return inside


def iou(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


def box_miou(bundle: Path, fruit: Path) -> dict[str, float]:
    """Mean IoU over all instances, one tight box and one mask each: the model's and two that see no image."""
    scores: dict[str, list[float]] = {"model": [], "filled box": [], "ellipse": []}
    with samrt.load(bundle) as model:
        for entry in json.loads((fruit / "index.json").read_text())["images"]:
            embedding = model.encode(fruit / "images" / entry["file"])
            truths = np.concatenate([instances(fruit / "masks" / name) for name in entry["masks"]])
            boxes = [tight_box(truth) for truth in truths]
            masks = model.predict(embedding, box=boxes, multimask_output=False).masks[:, 0]
            for truth, box, mask in zip(truths, boxes, masks, strict=True):
                scores["model"].append(iou(mask, truth))
                scores["filled box"].append(iou(filled(box, truth), truth))
                scores["ellipse"].append(iou(ellipse(box, truth), truth))
    assert len(scores["model"]) > 100
    return {name: float(np.mean(each)) for name, each in scores.items()}


def test_box_miou(lite_medsam_bundle: Path, fruit: Path) -> None:
    """Takes about a minute: an export, 18 images and 165 boxes."""
    means = box_miou(lite_medsam_bundle, fruit)
    said = ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
    assert means["model"] >= REQUIRED, said
    assert means["model"] > max(means["filled box"], means["ellipse"]), said
