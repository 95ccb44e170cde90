"""Where the protocol clicks, on masks whose deepest point is known."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_data import rectangle, truth_of

from samrt import InputError
from samrt.evaluation.protocol import PromptPlan, first_point, next_point, parse_prompts, prompt_box
from samrt.prompts import BACKGROUND, FOREGROUND


def test_the_first_point_is_the_deepest_of_the_object() -> None:
    mask = rectangle(10, 5, 31, 26) | rectangle(31, 14, 80, 17)  # a square of 21 with a long handle

    assert first_point(truth_of(mask)) == (20, 15, FOREGROUND)


def test_the_border_of_the_image_is_an_edge() -> None:
    assert first_point(truth_of(rectangle(0, 0, 11, 11))) == (5, 5, FOREGROUND)
    assert first_point(truth_of(np.ones((9, 9), bool))) == (4, 4, FOREGROUND)


def test_a_hole_is_an_edge() -> None:
    mask = rectangle(10, 10, 31, 31)
    mask[20, 20] = False

    x, y, _ = first_point(truth_of(mask))
    assert (x, y) != (20, 20)
    # Of the four places between hole and corner the first, row by row.
    assert (x, y) == (15, 15)


def test_the_distance_is_euclids() -> None:
    """The deepest pixel by exhaustive search; by chessboard or city block distance it would be another one."""
    rng = np.random.default_rng(0)
    mask = np.kron(rng.random((6, 9)) < 0.7, np.ones((10, 10))).astype(bool)
    mask[rng.integers(0, 60, 40), rng.integers(0, 90, 40)] = False
    ys, xs = np.nonzero(~np.pad(mask, 1))
    rows, columns = np.nonzero(mask)
    depths = np.hypot(columns[:, None] + 1 - xs, rows[:, None] + 1 - ys).min(axis=1)
    best = int(np.argmax(depths))

    assert first_point(truth_of(mask)) == (columns[best], rows[best], FOREGROUND)


def test_the_next_point_is_on_what_was_missed_where_that_is_deepest() -> None:
    truth = rectangle(10, 10, 51, 31)
    answer = rectangle(10, 10, 30, 31) | rectangle(60, 40, 63, 43)

    # 21 columns from 30 and 21 rows from 10 are missed, 3 x 3 are too much.
    assert next_point(truth, answer) == (40, 20, FOREGROUND)


def test_the_next_point_is_on_what_is_too_much_where_that_is_deepest() -> None:
    truth = rectangle(10, 10, 31, 31)
    answer = rectangle(10, 13, 31, 31) | rectangle(40, 20, 55, 35)

    assert next_point(truth, answer) == (47, 27, BACKGROUND)


def test_two_errors_that_touch_are_two_regions() -> None:
    """What was missed and what is too much are not one region, in whose middle nothing would be wrong either way."""
    truth, answer = rectangle(10, 10, 17, 30), rectangle(17, 10, 22, 30)

    assert next_point(truth, answer) == (13, 13, FOREGROUND)


def test_equal_errors_tell_the_object_first() -> None:
    assert next_point(rectangle(40, 10, 45, 15), rectangle(10, 10, 15, 15)) == (42, 12, FOREGROUND)


def test_a_perfect_answer_has_no_next_point() -> None:
    mask = rectangle(10, 10, 31, 31)

    assert next_point(mask, mask.copy()) is None


def test_the_box_goes_from_the_first_to_the_last_pixel() -> None:
    assert prompt_box(truth_of(rectangle(10, 5, 31, 26))) == (10, 5, 30, 25)


@pytest.mark.parametrize("mask", [rectangle(10, 5, 11, 26), rectangle(10, 5, 31, 6), rectangle(89, 59, 90, 60)])
def test_the_box_of_an_object_one_pixel_wide_is_a_prompt(mask: np.ndarray) -> None:
    x0, y0, x1, y1 = prompt_box(truth_of(mask))

    assert x1 > x0
    assert y1 > y0
    assert x1 <= 90
    assert y1 <= 60


@pytest.mark.parametrize(
    ("text", "plan", "names", "shown"),
    [
        ("box", PromptPlan(True, 0), ("box",), ("box",)),
        ("point", PromptPlan(False, 1), ("points:1",), ("points:1",)),
        ("box, points:5", PromptPlan(True, 5), ("box", "points:1", "points:2", "points:3", "points:5"), None),
        ("points:9,point", PromptPlan(False, 9), tuple(f"points:{n}" for n in (1, 2, 3, 5, 9)), None),
    ],
)
def test_prompts_are_read(text: str, plan: PromptPlan, names: tuple[str, ...], shown: tuple[str, ...] | None) -> None:
    read = parse_prompts(text)

    assert read == plan
    assert read.names == names
    assert read.shown == (shown or tuple(name for name in names if name in ("box", names[-1], "points:1")))


@pytest.mark.parametrize("text", ["", "boxes", "points", "points:4", "points:0", "points:x", "box:1", "box,,point"])
def test_other_prompts_are_refused_with_the_choice(text: str) -> None:
    with pytest.raises(InputError, match="box, point, or points:N with N one of 1, 2, 3, 5, 9"):
        parse_prompts(text)
