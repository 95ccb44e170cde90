"""The masks that see no image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from evaluation_data import rectangle, truth_of

from samrt.evaluation.baselines import baseline_masks, disc, disc_radius, ellipse, filled_box
from samrt.evaluation.metrics import iou


def test_the_filled_box_is_the_box_of_the_object() -> None:
    mask = rectangle(10, 5, 31, 26)

    np.testing.assert_array_equal(filled_box(truth_of(mask).box, mask.shape), mask)


def test_the_ellipse_touches_the_box_and_fits_a_circle() -> None:
    y, x = np.ogrid[:60, :90]
    circle = (x - 40) ** 2 + (y - 30) ** 2 <= 15.5**2
    truth = truth_of(circle)
    drawn = ellipse(truth.box, truth.size)

    assert truth_of(drawn).box == truth.box
    np.testing.assert_array_equal(drawn, circle)
    assert ellipse((4, 3, 4, 3), (60, 90)).sum() == 1


def test_the_disc_has_the_median_area_around_the_point_and_stays_in_the_image() -> None:
    radius = disc_radius(500)

    assert math.pi * radius**2 == pytest.approx(500)
    drawn = disc((45, 30, 1), radius, (60, 90))
    assert drawn.sum() == pytest.approx(500, rel=0.03)
    assert truth_of(drawn).box == (45 - int(radius), 30 - int(radius), 45 + int(radius), 30 + int(radius))
    assert disc((0, 0, 1), radius, (60, 90)).sum() < 150
    assert disc((7, 8, 1), disc_radius(1), (60, 90)).sum() == 1


def test_the_baselines_are_those_of_the_prompts_that_are_evaluated() -> None:
    truth = truth_of(rectangle(10, 5, 31, 26))

    assert list(baseline_masks(truth, True, None, 5)) == ["filled box", "ellipse"]
    assert list(baseline_masks(truth, False, (20, 15, 1), 5)) == ["disc"]
    assert iou(baseline_masks(truth, True, None, 5)["filled box"], truth) == 1
