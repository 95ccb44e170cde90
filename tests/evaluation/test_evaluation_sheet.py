"""The picture of the best, median and worst masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_data import HEIGHT, WIDTH, rectangle, write_data_set
from PIL import Image

from samrt import InputError
from samrt.evaluation.datasets import open_data_sets
from samrt.evaluation.sheet import choose_shown, draw_sheet
from samrt.rle import encode


def records(*ious: float) -> list[dict[str, Any]]:
    """One instance per score, two to an image; the answer is mask 1."""
    instances = [
        {"name": f"{n}", "prompts": {"box": {"answer": 1, "iou": [0, iou, 1, 1], "predicted": [0, 1, 1, 1]}}}
        for n, iou in enumerate(ious)
    ]
    return [{"image": f"{n}", "instances": instances[n : n + 2]} for n in range(0, len(ious), 2)]


def test_the_best_are_shown_from_the_top_and_the_worst_from_the_bottom() -> None:
    ious = [0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.2, 0.6, 0.4]
    rows = choose_shown(lambda: records(*ious), "box", columns=2)

    assert {heading: [each.iou for each in row] for heading, row in rows.items()} == {
        "best": [0.9, 0.8],
        "median": [0.4, 0.5],
        "worst": [0.1, 0.2],
    }
    assert [(each.image, each.instance["name"]) for each in rows["worst"]] == [("2", "2"), ("6", "6")]


def test_few_instances_make_a_narrow_sheet() -> None:
    assert [len(row) for row in choose_shown(lambda: records(0.5), "box").values()] == [1, 1, 1]
    assert [len(row) for row in choose_shown(lambda: records(*np.linspace(0, 1, 7)), "box").values()] == [2, 2, 2]
    assert [len(row) for row in choose_shown(lambda: records(*np.linspace(0, 1, 40)), "box").values()] == [4, 4, 4]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One grey image with one object: columns 30 to 49, rows 20 to 39."""
    folder = write_data_set(tmp_path / "grey", images=1)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 128, np.uint8)).save(folder / "images" / "0.png")
    Image.fromarray(rectangle(30, 20, 50, 40).astype(np.uint8)).save(folder / "masks" / "0_a.png")
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(folder / "masks" / "0_b.png")
    return folder


def one_record(answer: np.ndarray, name: str = "0_a.png#1", **extra: Any) -> list[dict[str, Any]]:
    score = {"answer": 0, "iou": [0.5] * 4, "predicted": [0.5] * 4, "mask": encode(answer), **extra}
    return [{"image": "0.png", "instances": [{"name": name, "box": [30, 20, 49, 39], "prompts": {"box": score}}]}]


@pytest.mark.parametrize("answer", [rectangle(30, 20, 50, 40), rectangle(0, 0, 0, 0), rectangle(0, 0, WIDTH, HEIGHT)])
def test_answer_and_truth_can_be_told_apart(folder: Path, answer: np.ndarray) -> None:
    (data_set,) = open_data_sets(folder)
    rows = choose_shown(lambda: one_record(answer), "box")
    sheet = draw_sheet(data_set, "box", {"best": rows["best"]}, "title")

    cell = sheet[66 : 66 + 280, 10 : 10 + 280].astype(int)
    coloured = (np.ptp(cell, axis=2) > 30).mean()
    assert (coloured > 0.1) == bool(answer.any())
    # The truth's line, whatever the answer: white and dark, neither of which the grey image has.
    inside = cell[8:-8, 8:-8]
    assert (inside.min(axis=2) > 200).any()


def test_a_thin_truth_of_a_large_image_has_its_line(tmp_path: Path) -> None:
    folder, size = write_data_set(tmp_path / "thin", images=1), (2000, 2000)
    Image.fromarray(np.full((*size, 3), 128, np.uint8)).save(folder / "images" / "0.png")
    Image.fromarray(rectangle(100, 1000, 1900, 1001, size).astype(np.uint8)).save(folder / "masks" / "0_a.png")
    Image.fromarray(np.zeros(size, np.uint8)).save(folder / "masks" / "0_b.png")
    (record,) = one_record(rectangle(0, 0, 0, 0, size))
    record["instances"][0]["box"] = [100, 500, 1899, 1500]  # clear of the line
    rows = choose_shown(lambda: [record], "box")
    sheet = draw_sheet(open_data_sets(folder)[0], "box", {"best": rows["best"]}, "title")

    line = sheet[66 + 130 : 66 + 150, 10 + 30 : 10 + 250].astype(int)
    assert (line.min(axis=2).max(axis=0) > 200).mean() > 0.9


def test_an_object_that_is_gone_is_an_error(folder: Path) -> None:
    (data_set,) = open_data_sets(folder)
    rows = choose_shown(lambda: one_record(rectangle(30, 20, 50, 40), name="0_a.png#9"), "box")

    with pytest.raises(InputError, match=r"no instance 0_a\.png#9 any more"):
        draw_sheet(data_set, "box", rows, "title")
