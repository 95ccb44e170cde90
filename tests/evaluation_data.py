"""Small data sets for the tests of the evaluation, and what the tests read of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samrt.evaluation.truths import Truth, cut_out

HEIGHT, WIDTH = 60, 90
IMAGES = 4  # of the first data set of `data`


def random_image(seed: int) -> NDArray[np.uint8]:
    """uint8 [HEIGHT, WIDTH, 3], smooth enough that the toy model makes masks of it that differ from place to place."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def random_ids(seed: int, count: int = 3) -> NDArray[np.uint8]:
    """uint8 [HEIGHT, WIDTH]: `count` rectangles and ellipses, the later over the earlier ones, each with pixels."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    for number in range(1, count + 1):
        cx, cy, rx, ry = (rng.integers(low, high) for low, high in ((15, 75), (12, 48), (6, 14), (5, 11)))
        if number % 2:
            ids[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1] = number
        else:
            ids[cy - ry : cy + ry, cx - rx : cx + rx] = number
    return ids


def write_data_set(folder: Path, images: int = 3, first_seed: int = 0, instances: int = 3) -> Path:
    """A folder as `samrt eval` reads it; the last image has two maps."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    entries = []
    for number in range(images):
        seed = first_seed + number
        Image.fromarray(random_image(seed)).save(folder / "images" / f"{number}.png")
        maps = [f"{number}.png"] if number < images - 1 else [f"{number}_a.png", f"{number}_b.png"]
        for index, name in enumerate(maps):
            Image.fromarray(random_ids(seed + 100 * index, instances)).save(folder / "masks" / name)
        entries.append({"file": f"{number}.png", "masks": maps, "width": WIDTH, "height": HEIGHT})
    (folder / "index.json").write_text(json.dumps({"name": "shapes", "images": entries}))
    return folder


def truth_of(mask: Any, name: str = "truth") -> Truth:
    """The instance in a mask that is not empty."""
    truth = cut_out(name, np.asarray(mask, np.bool_))
    assert truth is not None
    return truth


def rectangle(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.bool_]:
    """bool [H, W], true from (x0, y0) to before (x1, y1)."""
    mask = np.zeros(size, np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


class Heard:
    """Keeps what it is told; interrupts when it is told that so many images of the model are done."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.steps: list[tuple[str, int, int]] = []
        self.lines: list[str] = []
        self.interrupt_at = interrupt_at

    def step(self, what: str, done: int, total: int) -> None:
        self.steps.append((what, done, total))
        if "annotations" not in what and done == self.interrupt_at:
            raise KeyboardInterrupt

    def say(self, line: str) -> None:
        self.lines.append(line)


def read_results(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results
