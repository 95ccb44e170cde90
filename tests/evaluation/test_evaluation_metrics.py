"""IoU against pycocotools, boundary IoU against a case by hand and a slow implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from evaluation_data import random_ids, rectangle, truth_of
from numpy.typing import NDArray
from pycocotools import mask as coco

from samrt.evaluation.metrics import boundary, boundary_iou, boundary_width, correlation, iou

Mask = NDArray[np.bool_]

# pycocotools' arrays do not know numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def random_mask(seed: int, shape: tuple[int, int] = (40, 56)) -> Mask:
    rng = np.random.default_rng(seed)
    return np.kron(rng.random((shape[0] // 8, shape[1] // 8)) < 0.4, np.ones((8, 8))).astype(bool) ^ (
        rng.random(shape) < 0.05
    )


@pytest.mark.parametrize("seed", range(8))
def test_iou_area_and_box_are_those_of_pycocotools(seed: int) -> None:
    mask, other = random_mask(seed), random_mask(seed + 50)
    truth = truth_of(other)
    ours, theirs = (coco.encode(np.asfortranarray(each.astype(np.uint8))) for each in (mask, other))

    assert iou(mask, truth) == pytest.approx(coco.iou([ours], [theirs], [0])[0, 0], abs=1e-12)
    assert truth.area == coco.area(theirs)
    x0, y0, x1, y1 = truth.box
    assert [x0, y0, x1 - x0 + 1, y1 - y0 + 1] == list(coco.toBbox(theirs))
    np.testing.assert_array_equal(truth.mask(), other)


def test_iou_of_an_empty_mask_is_nothing_and_of_the_truth_all() -> None:
    truth = truth_of(random_ids(0) == 1)

    assert iou(np.zeros(truth.size, bool), truth) == 0
    assert boundary_iou(np.zeros(truth.size, bool), truth) == 0
    assert iou(truth.mask(), truth) == boundary_iou(truth.mask(), truth) == 1


def test_boundary_iou_by_hand() -> None:
    """d is 2 at 60 x 80. Squares of 10, the other 1 to the right: rings of 100 - 36 = 64 pixels.

    They share rows of the outer 2 on top and bottom, 2 * 2 * 9 = 36. Between those, 6 rows: ring columns 0, 1, 8, 9
    and 1, 2, 9, 10 have 2 in common, 12 pixels. 48 of 64 + 64 - 48 = 80.
    """
    size = 60, 80
    truth = truth_of(rectangle(20, 20, 30, 30, size))

    assert boundary_width(size) == 2
    assert boundary_iou(rectangle(21, 20, 31, 30, size), truth) == 48 / 80


def test_the_border_of_the_image_is_a_boundary() -> None:
    full = np.ones((7, 9), bool)

    expected = full.copy()
    expected[2:-2, 2:-2] = False
    np.testing.assert_array_equal(boundary(full, 2), expected)


def slow_boundary_iou(mask: Mask, truth: Mask) -> float:
    """By its definition, pixel by pixel: a pixel is inner if its square of side 2 d + 1 lies in mask and image."""
    d = max(1, round(0.02 * math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2)))

    def edge(of: Mask) -> Mask:
        framed = np.pad(of, d)
        inner = [
            [framed[y : y + 2 * d + 1, x : x + 2 * d + 1].all() for x in range(of.shape[1])] for y in range(of.shape[0])
        ]
        return of & ~np.array(inner)

    ours, theirs = edge(mask), edge(truth)
    return float((ours & theirs).sum() / (ours | theirs).sum())


@pytest.mark.parametrize("seed", range(4))
def test_boundary_iou_is_that_of_its_definition(seed: int) -> None:
    # Large enough for d to be 2; shapes that touch the border and each other.
    mask, other = random_mask(seed, (72, 96)), random_mask(seed + 50, (72, 96))

    assert boundary_iou(mask, truth_of(other)) == pytest.approx(slow_boundary_iou(mask, other), abs=1e-12)


def test_boundary_width_is_at_least_a_pixel() -> None:
    assert boundary_width((8, 8)) == 1
    assert boundary_width((600, 800)) == 20


def test_correlation_is_pearsons_and_none_where_it_is_not_defined() -> None:
    assert correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert correlation([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(0.6)
    assert correlation([1, 2, 3], [5, 5, 5]) is None
    assert correlation([1], [2]) is None
