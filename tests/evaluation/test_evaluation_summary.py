"""From records to means: which of four masks counts for what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from samrt.evaluation.report import scores_table
from samrt.evaluation.summary import summarise, tabulate


def instance(answer: int, iou: list[float], predicted: list[float], boundary: float) -> dict[str, Any]:
    score = {"answer": answer, "iou": iou, "predicted": predicted, "boundary_iou": boundary}
    return {
        "name": "x",
        "baselines": {"filled box": [0.5, 0.1], "ellipse": [0.6, 0.2], "disc": [0.3, 0.05]},
        "prompts": {"box": score, "points:1": score},
    }


RECORDS = [
    {"image": "a", "instances": [instance(0, [0.95, 0.9, 0.1, 0.2], [0.7, 0.2, 0.3, 0.9], 0.4)]},
    {"image": "b", "instances": []},
    {
        "image": "c",
        "instances": [
            instance(2, [0.1, 0.2, 0.4, 0.3], [0.99, 0.2, 0.6, 0.1], 0.2),
            instance(0, [0.6, 0.1, 0.1, 0.7], [0.5, 0.2, 0.1, 0.9], 0.6),
        ],
    },
]


def test_means_are_over_instances_and_each_column_takes_its_mask() -> None:
    (table,) = tabulate(RECORDS, ["box"])
    row = summarise("shapes", table)

    np.testing.assert_array_equal(table.images, [0, 2, 2])
    assert row.instances == 3
    assert row.answer.miou == pytest.approx((0.95 + 0.4 + 0.6) / 3)
    assert row.answer.boundary_miou == pytest.approx((0.4 + 0.2 + 0.6) / 3)
    assert row.confident_miou == pytest.approx((0.2 + 0.4 + 0.7) / 3)
    assert row.oracle_miou == pytest.approx((0.9 + 0.4 + 0.7) / 3)
    assert row.predicted_iou == pytest.approx((0.7 + 0.6 + 0.5) / 3)
    assert row.correlation == pytest.approx(np.corrcoef([0.7, 0.6, 0.5], [0.95, 0.4, 0.6])[0, 1])
    assert {name: (each.miou, each.boundary_miou) for name, each in row.baselines.items()} == {
        "filled box": (pytest.approx(0.5), pytest.approx(0.1)),
        "ellipse": (pytest.approx(0.6), pytest.approx(0.2)),
    }


def test_points_have_the_disc_beside_them_and_the_table_is_aligned() -> None:
    rows = [summarise("shapes|odd", table) for table in tabulate(RECORDS, ["box", "points:1"])]
    lines = scores_table(rows).splitlines()

    assert list(rows[1].baselines) == ["disc"]
    assert len({len(line) for line in lines}) == 1
    assert [line.count(" | ") for line in lines] == [8] * 4
    assert "| shapes\\|odd | 1 point |" in lines[3]
    assert "| 0.650 | 0.400 " in lines[2]
    assert "filled box 0.500/0.100, ellipse 0.600/0.200" in lines[2]
    assert "disc 0.300/0.050" in lines[3]
