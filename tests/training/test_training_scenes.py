"""`training/scenes`: one scene for one seed, well-formed ids, and masks that lie where the picture's edges are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from training.scenes import STYLES, scene
from training.scenes.camera import lens
from training.scenes.canvas import Canvas, numbered
from training.scenes.shapes import fill, superellipse

Scene = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def _drawn(style: str | None, count: int, side: int) -> list[Scene]:
    return [scene(np.random.default_rng(seed), side, style) for seed in range(count)]


@pytest.mark.parametrize("style", [None, *STYLES])
def test_a_seed_gives_one_scene_and_another_seed_another(style: str | None) -> None:
    (first, ids), (again, ids_again) = (scene(np.random.default_rng(5), 96, style) for _ in range(2))
    other, _ = scene(np.random.default_rng(6), 96, style)

    assert np.array_equal(first, again)
    assert np.array_equal(ids, ids_again)
    assert not np.array_equal(first, other)


def test_what_was_drawn_before_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    scene(rng, 64)
    state = rng.bit_generator.state
    second, _ = scene(rng, 64)
    fresh = np.random.default_rng(0)
    fresh.bit_generator.state = state

    assert np.array_equal(scene(fresh, 64)[0], second)


@pytest.mark.parametrize("side", [64, 128, 256])
@pytest.mark.parametrize("style", STYLES)
def test_every_scene_has_a_picture_and_ids_without_gaps(style: str, side: int) -> None:
    for image, ids in _drawn(style, 12, side):
        areas = np.bincount(ids.ravel())

        assert image.shape == (side, side, 3)
        assert ids.shape == (side, side)
        assert image.dtype == ids.dtype == np.uint8
        assert 2 <= len(areas) <= 251
        assert areas[1:].min() >= 20
        assert image.std() > 2


def test_the_frequencies_of_the_styles_add_up_to_one() -> None:
    assert sum(weight for _, weight in STYLES.values()) == pytest.approx(1)


def test_regions_leave_next_to_nothing_unlabelled() -> None:
    assert max(np.mean(ids == 0) for _, ids in _drawn("regions", 20, 128)) < 0.03


def test_ids_are_renumbered_and_small_ones_dropped() -> None:
    ids = np.zeros((40, 40), np.int32)
    ids[:10, :10], ids[20:24, :4], ids[30:, 30:] = 2, 5, 700

    result = numbered(ids)

    assert result.dtype == np.uint8
    assert np.array_equal(result, np.where(ids == 2, 1, np.where(ids == 700, 2, 0)))


def test_more_objects_than_a_byte_counts_become_background() -> None:
    ids = np.repeat(np.arange(300, dtype=np.int32)[:, None], 25, axis=1)

    assert np.array_equal(np.unique(numbered(ids)), np.arange(251))


def test_the_mask_of_a_plain_object_is_where_it_covers_half_a_pixel() -> None:
    canvas = Canvas(64, np.zeros((3, 1, 1), np.float32))
    centre = np.array([31.3, 28.6], np.float32)
    patch = fill([superellipse(17.5, 11.2, 2, 200) + centre], 64)
    assert patch is not None

    canvas.paint(patch, np.ones((3, 1, 1), np.float32))

    inside = canvas.ids == 1
    y, x = np.nonzero(inside)
    assert np.array_equal(inside, canvas.image[0] >= 0.5)
    # Continuous coordinates: pixel i's centre is i + 0.5. OpenCV draws a polygon's edge too, half a fine pixel outside.
    weights = patch.alpha / patch.alpha.sum()
    assert float(weights.sum(axis=0) @ np.arange(patch.x, patch.x + weights.shape[1])) + 0.5 == pytest.approx(
        31.3, abs=0.05
    )
    assert float(weights.sum(axis=1) @ np.arange(patch.y, patch.y + weights.shape[0])) + 0.5 == pytest.approx(
        28.6, abs=0.05
    )
    assert float(patch.alpha.sum()) == pytest.approx(np.pi * 17.5 * 11.2, rel=0.03)
    assert x.mean() + 0.5 == pytest.approx(31.3, abs=0.2)
    assert y.mean() + 0.5 == pytest.approx(28.6, abs=0.2)


def _profile(scenes: list[Scene], reach: int) -> NDArray[np.float64]:
    """Mean step from a pixel to its right and lower neighbour, at -reach..reach pixels from where the id changes."""
    sums, counts = np.zeros(2 * reach + 1), np.zeros(2 * reach + 1)
    for image, ids in scenes:
        for pixels, labels in ((image, ids), (image.swapaxes(0, 1), ids.T)):
            steps = np.abs(np.diff(pixels.astype(np.float32), axis=1)).max(axis=-1)
            borders = np.diff(labels.astype(np.int32), axis=1) != 0
            inner = borders[:, reach:-reach]
            width = inner.shape[1]
            for k in range(2 * reach + 1):
                sums[k] += steps[:, k : k + width][inner].sum()
                counts[k] += inner.sum()
    return sums / counts


@pytest.mark.parametrize("style", STYLES)
def test_the_picture_has_its_edges_where_the_ids_change(style: str) -> None:
    scenes = _drawn(style, 30, 128)

    profile = _profile(scenes, 6)

    assert int(np.argmax(profile)) == 6
    assert profile[6] > 1.5 * np.mean(profile[[0, 1, 11, 12]])
    # Half a pixel aside, one neighbour would be as high as the middle.
    assert profile[5] == pytest.approx(profile[7], rel=0.25)
    aside = [(image, np.roll(ids, (5, 5), axis=(0, 1))) for image, ids in scenes]
    assert int(np.argmax(_profile(aside, 6))) != 6


def test_no_blur_moves_anything() -> None:
    # A half turn leaves this as it is, and so does every blur that has no direction.
    half = np.random.default_rng(0).random((64, 128, 3), np.float32)
    image = cv2.blur(np.concatenate([half, half[::-1, ::-1]]), (5, 5))

    for seed in range(60):
        blurred = lens(np.random.default_rng(seed), image.copy(), blur=2)

        assert blurred.shape == image.shape
        assert np.abs(blurred - blurred[::-1, ::-1]).max() < 1e-4
