"""The difference of two models and its bootstrap interval."""

from __future__ import annotations

import numpy as np
import pytest

from samrt import InputError
from samrt.evaluation.difference import bootstrap_interval, paired_difference
from samrt.evaluation.summary import Table


def table(ious: np.ndarray, images: np.ndarray) -> Table:
    names = [(str(image), str(number)) for number, image in enumerate(images)]
    return Table("box", names, images, {"iou": ious, "boundary_iou": ious / 2})


def test_two_equal_models_differ_by_nothing() -> None:
    ious, images = np.random.default_rng(0).random(40), np.arange(40) // 4
    found = paired_difference("shapes", table(ious, images), table(ious.copy(), images))

    assert found.difference == found.boundary_difference == 0
    assert found.interval == found.boundary_interval == (0, 0)


def test_a_constant_difference_is_found_exactly_and_has_its_sign() -> None:
    ious, images = np.random.default_rng(0).random(40) / 2, np.arange(40) // 4
    found = paired_difference("shapes", table(ious, images), table(ious + 0.25, images))

    assert found.other_miou - found.miou == pytest.approx(0.25)
    assert found.difference == pytest.approx(0.25)
    assert found.boundary_difference == pytest.approx(0.125)
    assert found.interval == pytest.approx((0.25, 0.25))


def test_tables_of_other_instances_are_not_compared() -> None:
    ious = np.random.default_rng(0).random(4)

    with pytest.raises(InputError, match=r"of shapes are not of the same instances; .*restart=True"):
        paired_difference("shapes", table(ious, np.array([0, 0, 1, 1])), table(ious, np.array([0, 1, 1, 1])))


def test_the_interval_is_that_of_the_normal_approximation() -> None:
    """200 images of one instance: the mean's interval is 1.96 standard errors on both sides."""
    differences = np.random.default_rng(1).normal(0.02, 0.1, 200)
    interval = bootstrap_interval(differences, np.arange(200))

    reach = 1.96 * differences.std() / np.sqrt(200)
    assert interval == pytest.approx((differences.mean() - reach, differences.mean() + reach), abs=0.002)
    assert bootstrap_interval(differences, np.arange(200)) == interval  # seeded


def test_whole_images_are_drawn() -> None:
    """Ten equal instances per image tell no more than one: the interval must not shrink."""
    of_images = np.random.default_rng(2).normal(0, 0.1, 30)
    single = bootstrap_interval(of_images, np.arange(30))
    repeated = bootstrap_interval(np.repeat(of_images, 10), np.repeat(np.arange(30), 10))

    assert single is not None
    assert repeated == pytest.approx(single, abs=1e-12)


def test_images_weigh_by_their_instances() -> None:
    """Drawn again instance by instance: five images of 3 that differ by 0.3, five of 1 that do not."""
    images = np.concatenate([np.repeat(np.arange(5), 3), np.arange(5, 10)])
    differences = np.where(images < 5, 0.3, 0.0)
    rng = np.random.default_rng(7)
    drawn = [np.concatenate([differences[images == n] for n in rng.integers(0, 10, 10)]) for _ in range(4000)]

    expected = np.percentile([each.mean() for each in drawn], [2.5, 97.5])
    assert bootstrap_interval(differences, images) == pytest.approx(tuple(expected), abs=0.01)


def test_it_covers_the_true_difference_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        of_images = rng.normal(0.01, 0.05, 25)
        differences = np.repeat(of_images, 3) + rng.normal(0, 0.02, 75)
        interval = bootstrap_interval(differences, np.repeat(np.arange(25), 3), resamples=1000)
        assert interval is not None
        covered += interval[0] <= 0.01 <= interval[1]

    # A percentile interval of 25 images is known to be a little narrow.
    assert 0.86 <= covered / 200 <= 0.99


def test_few_images_have_no_interval() -> None:
    differences = np.random.default_rng(4).normal(0.01, 0.05, 20)

    assert bootstrap_interval(differences, np.arange(20) % 9) is None
    assert bootstrap_interval(differences, np.arange(20) % 10) is not None
    assert bootstrap_interval(np.array([0.1, 0.2]), np.array([4, 4])) is None
    assert bootstrap_interval(np.array([]), np.array([], np.int64)) is None
