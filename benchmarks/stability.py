"""How sharp a model's masks are: stability of the masks of a grid of points, and how many a mask generator would keep.

    PYTHONPATH=. python benchmarks/stability.py BUNDLE [BUNDLE ...] --images DATA/coco/images

Each point gives three masks. A mask's stability is SAM's: the area of the logits above +1, divided by the area of those
above -1. Prints a line of JSON for each bundle. The images are the first, middle and last of the folder by name.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import samrt
from samrt.images import read_image

POINTS, TOGETHER = 12, 16  # on each side of the grid; in one call
# Least predicted IoU and stability: the defaults of Meta's SamAutomaticMaskGenerator, and lower ones.
THRESHOLDS = {"at_meta_defaults": (0.88, 0.95), "at_0.7_and_0.8": (0.7, 0.8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    names = sorted(arguments.images.iterdir())
    chosen = [names[0], names[len(names) // 2], names[-1]]
    for bundle in arguments.bundles:
        with samrt.load(bundle) as model:
            found = [of_grid(model, path) for path in chosen]
        said, stable = (np.concatenate([each[part] for each in found]) for part in (0, 1))
        best = np.take_along_axis(stable, said.argmax(1)[:, None], 1)
        kept = {name: int(((said > iou) & (stable > least)).sum()) for name, (iou, least) in THRESHOLDS.items()}
        medians = {
            "median_stability": median(best),
            "of_all_three_masks": median(stable),
            "predicted_iou": median(said),
        }
        print(json.dumps({"bundle": bundle.name, "points": len(said), "masks": said.size, **medians, **kept}))


def median(values: NDArray[np.floating]) -> float:
    return round(float(np.median(values)), 3)


def of_grid(model: samrt.Model, path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Predicted IoU and stability, each `[N, 3]`, of an image's grid of points."""
    image = read_image(path)
    height, width = image.shape[:2]
    line = (np.arange(POINTS) + 0.5) / POINTS
    points = np.stack(np.meshgrid(line * width, line * height), -1).reshape(-1, 1, 2)
    embedding = model.encode(image)
    said, stable = [], []
    for first in range(0, len(points), TOGETHER):
        some = points[first : first + TOGETHER]
        answer = model.predict(embedding, point_coords=some, point_labels=np.ones(some.shape[:2]))
        scale = answer.low_res_masks.shape[-1] / max(height, width)  # what lies outside the image does not count
        logits = answer.low_res_masks[..., : round(height * scale), : round(width * scale)]
        said.append(answer.iou_predictions)
        stable.append((logits > 1).sum((-1, -2)) / np.maximum((logits > -1).sum((-1, -2)), 1))
    return np.concatenate(said), np.concatenate(stable)


if __name__ == "__main__":
    main()
