"""Strokes become points on them and corrections under them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from samrt.errors import InputError
from samrt.scribble import STROKE_LOGIT, Scribble, correct_logits, scribble_points

SIZE = (60, 100)
CORNER = [[10.0, 10.0], [50.0, 10.0], [50.0, 50.0]]


def _disc(y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.hypot(rows - y, columns - x) <= radius


def test_points_are_evenly_spaced_along_a_polyline() -> None:
    coords, labels = scribble_points(Scribble([CORNER], max_points=4), SIZE)
    np.testing.assert_allclose(coords, [[20, 10], [40, 10], [50, 20], [50, 40]])
    np.testing.assert_array_equal(labels, [1, 1, 1, 1])


def test_repeated_vertices_change_nothing() -> None:
    doubled = np.repeat(CORNER, 3, axis=0)
    np.testing.assert_allclose(
        scribble_points(Scribble([doubled]), SIZE)[0], scribble_points(Scribble([CORNER]), SIZE)[0]
    )


def test_longer_strokes_get_more_points() -> None:
    lines = [[[0, 5], [90, 5]], [[0, 20], [30, 20]], [[7, 40]]]
    coords, _ = scribble_points(Scribble(lines, max_points=5), SIZE)
    np.testing.assert_allclose(coords, [[15, 5], [45, 5], [75, 5], [15, 20], [7, 40]])


def test_too_many_strokes_keep_the_longest() -> None:
    lines = [[[0, y], [10 * y, y]] for y in (1, 3, 2)]
    coords, _ = scribble_points(Scribble(lines, max_points=2), SIZE)
    np.testing.assert_allclose(coords, [[15, 3], [10, 2]])


def test_short_stroke_is_not_said_twice() -> None:
    assert len(scribble_points(Scribble([[[5, 5]]], max_points=50), SIZE)[0]) == 1
    assert len(scribble_points(Scribble([[[5, 5], [8, 5]]], max_points=50), SIZE)[0]) == 3


def test_background_points_follow_with_label_0() -> None:
    coords, labels = scribble_points(Scribble([CORNER], background=[[[90, 5]], [[90, 55]]], max_points=3), SIZE)
    np.testing.assert_array_equal(labels, [1, 1, 1, 0, 0])
    np.testing.assert_allclose(coords[3:], [[90, 5], [90, 55]])


def test_painted_blob_needs_one_point_at_its_centre() -> None:
    coords, labels = scribble_points(Scribble(_disc(30, 40, 12), max_points=8), SIZE)
    np.testing.assert_array_equal(coords, [[40, 30]])
    np.testing.assert_array_equal(labels, [1])


def test_points_within_reach_of_a_thick_brush_are_not_repeated() -> None:
    dab = np.logical_or.reduce([_disc(30, x, 12) for x in range(37, 44)])
    assert len(scribble_points(Scribble(dab, max_points=8), SIZE)[0]) == 1


def test_painted_line_is_covered_along_its_middle() -> None:
    paint = np.zeros(SIZE, np.uint8)
    paint[28:33, 5:95] = 255
    coords, _ = scribble_points(Scribble(paint, max_points=6), SIZE)
    assert len(coords) == 6
    assert (np.abs(coords[1:, 1] - 30) <= 2).all()
    assert coords[0, 1] == 30
    assert np.diff(np.sort(coords[:, 0])).max() < 40
    assert all(paint[int(y), int(x)] for x, y in coords)
    assert len({tuple(point) for point in coords.tolist()}) == 6


def test_points_of_a_curved_brush_stroke_lie_on_its_middle() -> None:
    middle = [(30 + 20 * np.sin(7 * t), 10 + 80 * t) for t in np.linspace(0, 1, 200)]
    stroke = np.logical_or.reduce([_disc(y, x, 3) for y, x in middle])
    coords, _ = scribble_points(Scribble(stroke, max_points=8), SIZE)
    assert len(coords) == 8
    for x, y in coords:
        assert min(np.hypot(x - b, y - a) for a, b in middle) < 1.5


def test_first_painted_point_is_the_innermost() -> None:
    paint = _disc(30, 70, 15)
    paint[29:32, 5:70] = True
    coords, _ = scribble_points(Scribble(paint, max_points=2), SIZE)
    assert tuple(coords[0]) == (70, 30)
    assert coords[1, 0] < 15


def test_border_of_the_image_bounds_paint() -> None:
    paint = np.zeros(SIZE, bool)
    paint[:21, :21] = True
    np.testing.assert_array_equal(scribble_points(Scribble(paint, max_points=1), SIZE)[0], [[10, 10]])


def test_points_are_the_same_every_time() -> None:
    paint = np.random.default_rng(0).random(SIZE) < 0.3
    first, second = (scribble_points(Scribble(paint), SIZE)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("background", [None, [], np.zeros(SIZE, bool)])
def test_background_may_be_empty(background: Any) -> None:
    assert (scribble_points(Scribble([CORNER], background=background), SIZE)[1] == 1).all()


def _corrected(scribble: Scribble, logits: np.ndarray, size: tuple[int, int] = SIZE) -> np.ndarray:
    """At S = 64 and L = 16 the image of 60 x 100 is 38 x 64, so a low-res pixel is 6.25 wide and 6.3 high."""
    input_size = (38, 64) if size == SIZE else size
    return correct_logits(logits, scribble, size, input_size, 64, threshold=0.5)


def test_logits_are_clear_under_strokes_and_as_they_were_elsewhere() -> None:
    logits = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    before = logits.copy()
    result = _corrected(Scribble([[[0, 10], [99, 10]]], background=[[[50, 30], [50, 59]]]), logits)
    changed = np.zeros((16, 16), bool)
    changed[1] = True
    changed[4:10, 8] = True
    np.testing.assert_array_equal(result != before, changed)
    np.testing.assert_allclose(result[1], 0.5 + STROKE_LOGIT)
    np.testing.assert_allclose(result[4:10, 8], 0.5 - STROKE_LOGIT)
    np.testing.assert_array_equal(logits, before)


def test_clearer_logits_stay() -> None:
    assert (_corrected(Scribble([[[0, 10], [99, 10]]]), np.full((16, 16), 50, np.float32)) == 50).all()
    assert (_corrected(Scribble([[[0, 50]]], [[[0, 10]]]), np.full((16, 16), -50, np.float32))[:7] == -50).all()


def test_diagonal_stroke_leaves_no_gap() -> None:
    result = _corrected(Scribble([[[0, 0], [99, 59]]]), np.zeros((16, 16), np.float32))
    touched = np.argwhere(result > 1)
    assert set(touched[:, 1]) == set(range(16))
    assert set(touched[:, 0]) == set(range(10))


def test_paint_and_polyline_touch_the_same_cells() -> None:
    paint = np.zeros(SIZE, bool)
    paint[10, :] = True
    zeros = np.zeros((16, 16), np.float32)
    np.testing.assert_array_equal(
        _corrected(Scribble(paint), zeros), _corrected(Scribble([[[0, 10], [99, 10]]]), zeros)
    )


def test_pixel_of_a_tiny_image_fills_all_its_cells() -> None:
    paint = np.zeros((2, 4), bool)
    paint[1, 2] = True
    result = correct_logits(np.zeros((16, 16), np.float32), Scribble(paint), (2, 4), (32, 64), 64, threshold=0.0)
    expected = np.zeros((16, 16), bool)
    expected[4:8, 8:12] = True
    np.testing.assert_array_equal(result > 0, expected)


def test_strokes_on_the_far_edge_stay_inside() -> None:
    result = _corrected(Scribble([[[100, 60]]]), np.zeros((16, 16), np.float32))
    assert np.argwhere(result > 0).tolist() == [[9, 15]]


def test_cells_under_both_kinds_stay_as_predicted() -> None:
    logits = np.full((16, 16), 2, np.float32)
    result = _corrected(Scribble([[[1, 1]]], background=[[[3, 3]]]), logits)
    np.testing.assert_array_equal(result, logits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"foreground": []}, "foreground is empty; draw"),
        ({"foreground": np.zeros(SIZE, bool)}, "foreground is empty; draw"),
        ({"foreground": None}, "foreground must be a list of polylines or a painted mask, not NoneType"),
        ({"foreground": "line"}, "not str"),
        ({"foreground": np.zeros((5, 2))}, r"array float64 \[5, 2\]: a painted mask must be bool or uint8"),
        ({"foreground": np.zeros((5, 4, 3), np.uint8)}, "painted mask must be"),
        ({"foreground": [[1, 2]]}, r"shape \[K, 2\] with K >= 1, not \[2\]"),
        ({"foreground": [np.zeros((0, 2))]}, r"not \[0, 2\]"),
        ({"foreground": [[[1, 2, 3]]]}, r"not \[1, 3\]"),
        ({"foreground": [[[1, np.nan]]]}, "foreground contains NaN"),
        ({"foreground": [[["a", "b"]]]}, "is not numbers"),
        ({"foreground": [[[1, 10**400]]]}, "is not numbers"),
        ({"foreground": [CORNER], "background": [[1, 2]]}, "background must have the shape"),
        ({"foreground": [CORNER], "max_points": 0}, "at least 1, not 0"),
        ({"foreground": [CORNER], "max_points": 2.0}, "integer of at least 1, not 2.0"),
        ({"foreground": [CORNER], "max_points": True}, "not True"),
    ],
)
def test_scribbles_that_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scribble(**arguments)


@pytest.mark.parametrize(
    ("scribble", "message"),
    [
        (Scribble([[[5, 5], [102, 5]]]), r"foreground leaves the image of 100x60 .* at \(102, 5\)"),
        (Scribble([[[5, 5]]], [[[5, -2]]]), "background leaves the image"),
        (Scribble(np.ones((100, 60), bool)), "painted on 60x100, the image is 100x60"),
        (Scribble(_disc(30, 30, 5), _disc(30, 36, 5)), r"overlap, for example at \(3[1-5], \d+\); erase"),
    ],
)
def test_scribbles_that_do_not_fit_the_image(scribble: Scribble, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scribble_points(scribble, SIZE)
