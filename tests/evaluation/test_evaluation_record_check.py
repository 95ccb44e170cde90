"""Records with a right checksum that no evaluation can have made."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from changed_json import changed
from evaluation_data import rectangle, truth_of

from samrt.evaluation.protocol import parse_prompts
from samrt.evaluation.record_check import RecordCheck, Surveyed
from samrt.rle import encode

SIZE = (20, 30)
TRUTH = truth_of(rectangle(3, 4, 9, 8, SIZE), "a.png#1")
CHECK = RecordCheck(
    {"a.jpg": Surveyed.of(SIZE, [TRUTH]), "empty.jpg": Surveyed.of(SIZE, [])}, parse_prompts("box,points:2"), 4
)
SCORE = {"answer": 0, "iou": [0.5, 0, 1, 0.25], "predicted": [0.9, -0.1, 1.2, 7], "boundary_iou": 1.0}
MASK = {"mask": encode(TRUTH.mask())}
RECORD = json.dumps(
    {
        "image": "a.jpg",
        "instances": [
            {
                "name": TRUTH.name,
                "area": TRUTH.area,
                "box": list(TRUTH.box),
                "baselines": {name: [0.5, 0.25] for name in ("filled box", "ellipse", "disc")},
                "prompts": {
                    "box": {**SCORE, **MASK},
                    "points:1": {**SCORE, **MASK, "answer": 3, "points": [[29, 19, 1]]},
                    "points:2": {**SCORE, **MASK, "points": [[0, 0, 1], [5, 5, 0]]},
                },
            }
        ],
    }
)
ONE = ("instances", 0)
BOX, POINTS = (*ONE, "prompts", "box"), (*ONE, "prompts", "points:1")


def test_what_an_evaluation_writes_fits() -> None:
    assert CHECK.fits(json.loads(RECORD))
    assert CHECK.fits({"image": "empty.jpg", "instances": []})


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("image",), "b.jpg"),
        (("image",), "empty.jpg"),
        (("instances",), []),
        (("instances",), [*json.loads(RECORD)["instances"]] * 2),
        (ONE, 5),
        ((*ONE, "name"), "a.png#2"),
        ((*ONE, "name"), ["a.png#1"]),
        ((*ONE, "area"), -24),
        ((*ONE, "area"), 24.0),
        ((*ONE, "box"), [3, 4, 8, 8]),
        ((*ONE, "box"), None),
        ((*ONE, "baselines"), []),
        ((*ONE, "baselines", "disc"), [0.5]),
        ((*ONE, "baselines", "disc"), [0.5, 1.5]),
        ((*ONE, "prompts"), {}),
        (BOX, None),
        ((*BOX, "answer"), 4),
        ((*BOX, "answer"), -1),
        ((*BOX, "answer"), True),
        ((*BOX, "iou"), [7, 0, 0, 0]),
        ((*BOX, "iou"), [0.5, 0, 0]),
        ((*BOX, "iou"), [0.5, 0, 0, float("nan")]),
        ((*BOX, "iou"), [0.5, 0, 0, True]),
        ((*BOX, "iou"), [0.5, 0, 0, "1"]),
        ((*BOX, "iou"), {"0": 1}),
        ((*BOX, "predicted"), [float("inf"), 0, 0, 0]),
        ((*BOX, "predicted"), [1e300, 0, 0, 0]),
        ((*BOX, "predicted"), [10**400, 0, 0, 0]),
        ((*BOX, "boundary_iou"), -0.1),
        ((*BOX, "boundary_iou"), None),
        ((*BOX, "mask"), None),
        ((*BOX, "mask", "size"), [30, 20]),
        ((*BOX, "mask", "counts"), "0"),
        ((*POINTS, "points"), []),
        ((*POINTS, "points"), [[1, 1, 1], [2, 2, 1]]),
        ((*POINTS, "points"), [[30, 1, 1]]),
        ((*POINTS, "points"), [[1, 20, 1]]),
        ((*POINTS, "points"), [[1, 1, 2]]),
        ((*POINTS, "points"), [[1, 1.5, 1]]),
        ((*POINTS, "points"), [1, 1, 1]),
    ],
)
def test_impossible_values_do_not(keys: tuple[Any, ...], value: object) -> None:
    assert not CHECK.fits(json.loads(changed(RECORD, *keys, to=value)))


def test_a_mask_of_another_image_does_not() -> None:
    other = encode(np.zeros((20, 31), np.bool_))
    assert not CHECK.fits(json.loads(changed(RECORD, *BOX, "mask", to=other)))
