"""`training/pack.py` and `training/samples.py`: what training sees."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest
from training_fixtures import TINY, discs, write_data_set

from samrt.errors import InputError
from training.pack import JPEG, Picture, pack, unpack
from training.samples import Batch, BatchMaker, Makers, _box, _point, make_batch


def _batch(seed: int, synthetic: float = 0.0) -> Batch:
    stage = replace(TINY.stages[2], images=8, synthetic=synthetic)
    return make_batch(np.random.default_rng(seed), discs(), TINY, stage)


@pytest.mark.parametrize("synthetic", [0.0, 1.0])
def test_prompts_fit_the_masks_they_ask_for(synthetic: float) -> None:
    batch = _batch(0, synthetic)
    assert batch.images.shape == (8, 3, 64, 64)
    assert batch.targets.shape == (8, 3, 32, 32)
    tight = 0
    for targets, points, boxes, size in zip(batch.targets, batch.points, batch.boxes, batch.sizes, strict=True):
        for target, (x, y), box in zip(targets, points, boxes, strict=True):
            # A point is a pixel of the object, and a low-res pixel covers two by two.
            assert target[int(y) // 2, int(x) // 2] >= 255 // 4
            assert (box[:2] <= box[2:]).all()
            assert box.min() >= 0
            assert box[2] <= size[1] - 1
            assert box[3] <= size[0] - 1
            rows, columns = np.flatnonzero(target.any(axis=1)), np.flatnonzero(target.any(axis=0))
            covered = [columns[0], rows[0], columns[-1], rows[-1]]
            tight += np.array_equal(box // 2, covered)
    assert tight > 8 * 3 * 0.3  # by half not displaced


def test_pictures_are_padded_with_nothing_right_and_below() -> None:
    batch = _batch(1)
    assert len({tuple(size) for size in batch.sizes.tolist()}) > 1
    for image, targets, (height, width) in zip(batch.images, batch.targets, batch.sizes, strict=True):
        assert max(height, width) == 64
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()
        assert not targets[:, -(-height // 2) :].any()
        assert not targets[:, :, -(-width // 2) :].any()


def test_targets_lie_on_what_is_bright() -> None:
    batch = _batch(2)
    brightness = batch.images.astype(float).mean(axis=1)
    inside = outside = 0.0
    for image, targets in zip(brightness, batch.targets, strict=True):
        objects = cv2.resize(targets.max(axis=0), (64, 64), interpolation=cv2.INTER_NEAREST) > 250
        inside, outside = inside + image[objects].mean(), outside + image[~objects].mean()
    assert inside > 1.5 * outside


@pytest.mark.parametrize("processes", [0, 1])
def test_a_step_has_one_batch_whatever_came_before_and_whoever_made_it(tmp_path: Path, processes: int) -> None:
    pack(write_data_set(tmp_path / "data"), tmp_path / "packed.npz")
    make = BatchMaker(tmp_path / "packed.npz", TINY)
    with Makers(0) as alone, Makers(processes) as makers:
        whole = dict(alone.batches(make, 2, range(5)))
        next(makers.batches(make, 1, count()))  # of a stage that was left before its end
        rest = dict(makers.batches(make, 2, range(3, 5)))

    assert (list(whole), list(rest)) == ([0, 1, 2, 3, 4], [3, 4])
    for step, batch in rest.items():
        for name in vars(batch):
            np.testing.assert_array_equal(getattr(batch, name), getattr(whole[step], name))
    assert not np.array_equal(whole[0].images, whole[1].images)


def test_packed_data_comes_back_and_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    data = write_data_set(tmp_path / "data")
    for name in ("a.npz", "b.npz"):
        pack(data, tmp_path / name)

    pictures = unpack(tmp_path / "a.npz")["discs"]

    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    width, height = JPEG.side, JPEG.side * 3 // 4
    for found, original in zip(pictures, discs()["discs"], strict=True):
        assert found.image.shape == (height, width, 3)
        assert found.id_maps[0].shape == found.image.shape[:2]
        # The ids are numbered anew, by size.
        for old in (1, 2, 3):
            large = cv2.resize(original.id_maps[0], (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
            assert len(np.unique(found.id_maps[0][large == old])) == 1


def test_a_map_of_many_ids_keeps_the_largest_regions(tmp_path: Path) -> None:
    data = write_data_set(tmp_path / "data")
    ids = np.arange(400, dtype=np.uint16).reshape(20, 20)
    ids[0, :10] = 399
    cv2.imwrite(str(data / "discs" / "masks" / "0.png"), ids)

    pack(data, tmp_path / "packed.npz")

    (found,) = unpack(tmp_path / "packed.npz")["discs"][0].id_maps
    assert found.max() == 255
    assert found[0, 0] == 1


@pytest.mark.parametrize("damage", ["absent", "truncated", "junk"])
def test_damaged_packed_data_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "packed.npz"
    if damage != "absent":
        pack(write_data_set(tmp_path / "data"), path)
        path.write_bytes(path.read_bytes()[:3000] if damage == "truncated" else b"junk")

    with pytest.raises(InputError, match=r"training\.pack"):
        unpack(path)


def test_a_damaged_picture_is_told_when_it_is_decoded() -> None:
    with pytest.raises(InputError, match=r"training\.pack"):
        _ = Picture((np.zeros(9, np.uint8),)).image


def test_a_data_set_with_a_missing_picture_is_not_packed(tmp_path: Path) -> None:
    data = write_data_set(tmp_path / "data")
    (data / "discs" / "images" / "1.png").unlink()

    with pytest.raises(InputError, match=r"1\.png is missing"):
        pack(data, tmp_path / "packed.npz")

    assert not (tmp_path / "packed.npz").exists()


def test_a_folder_without_data_sets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data set"):
        pack(tmp_path, tmp_path / "packed.npz")


def test_by_half_a_box_is_displaced_by_a_tenth_of_its_sides() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[40:60, 30:70] = 1
    boxes = np.array([_box(np.random.default_rng(seed), mask) for seed in range(400)])

    moved = (boxes != [30, 40, 69, 59]).any(axis=1)

    assert 0.4 < moved.mean() < 0.6
    displaced = np.abs(boxes[moved] - [30, 40, 69, 59])
    assert displaced.max() <= 20 / 1024 * 100
    assert displaced.mean() > 0.8  # most would go beyond that limit, and stop there


def test_by_half_a_point_is_the_innermost_and_by_half_any() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[10:31, 20:41] = 1
    points = np.array([_point(np.random.default_rng(seed), mask) for seed in range(400)])

    middle = (points == [30, 20]).all(axis=1)

    assert 0.4 < middle.mean() < 0.6
    others = points[~middle]
    assert (others.min(axis=0) <= [22, 12]).all()
    assert (others.max(axis=0) >= [38, 28]).all()


def test_data_that_lacks_a_set_of_the_recipe_is_refused(tmp_path: Path) -> None:
    pack(write_data_set(tmp_path / "data"), tmp_path / "packed.npz")
    make = BatchMaker(tmp_path / "packed.npz", replace(TINY, sources=(("squares", 1.0),)))

    with pytest.raises(InputError, match="lacks the data set squares"):
        make.check()


def test_an_index_that_lists_nothing_is_told(tmp_path: Path) -> None:
    data = write_data_set(tmp_path / "data")
    (data / "discs" / "index.json").write_text('{"images": [{"file": "0.png"}]}')

    with pytest.raises(InputError, match=r"index\.json does not list"):
        pack(data, tmp_path / "packed.npz")


def test_processes_that_make_batches_come_after_the_one_that_trains() -> None:
    with Makers(1) as makers:
        assert makers._pool.submit(os.nice, 0).result() == min(19, os.nice(0) + 10)
