"""Photographs at other scales, photographs held out, and the scores that a recipe is chosen by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_fixtures import TINY, decoder_state, discs, write_data_set

from training import validate
from training.held_out import held_out, kept_for_training
from training.model import initial_state
from training.pack import pack
from training.scales import around_an_object, four_in_one

PICTURE = discs()["discs"][0]


def test_a_window_holds_one_object_whole_and_is_a_part_of_the_picture() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    ids = np.zeros((300, 400), np.uint8)
    ids[40:60, 350:380] = 7
    for seed in range(30):
        pixels, labels = around_an_object(np.random.default_rng(seed), image, ids)
        assert (labels == 7).sum() == 20 * 30
        assert 64 <= max(labels.shape) <= 4 * 30
        top, left = (np.argwhere((image == pixels[0, 0]).all(axis=2)))[0]
        assert np.array_equal(pixels, image[top : top + labels.shape[0], left : left + labels.shape[1]])


def test_a_picture_without_objects_stays_whole() -> None:
    nothing = np.zeros((50, 60), np.uint8)
    image, ids = around_an_object(np.random.default_rng(0), np.zeros((50, 60, 3), np.uint8), nothing)
    assert image.shape[:2] == ids.shape == (50, 60)


def test_four_pictures_fill_a_square_and_their_objects_stay_apart() -> None:
    pictures = [(PICTURE.image, PICTURE.id_maps[0])] * 4
    image, ids = four_in_one(np.random.default_rng(1), pictures, 128)
    assert image.shape == (128, 128, 3)
    assert image.max(axis=2).all(axis=None) or (image == 0).mean() < 0.05  # nothing is left empty
    numbers = np.unique(ids)
    assert {int(number - 1) // 60 for number in numbers if number} == {0, 1, 2, 3}
    # Objects are bright, wherever they lie.
    assert image[ids > 0].mean() > 3 * image[ids == 0].mean()
    # None lies in two of the quarters.
    for number in numbers[numbers > 0]:
        rows, columns = np.nonzero(ids == number)
        assert max(np.ptp(rows), np.ptp(columns)) < 128 * 0.65


def test_held_out_photographs_are_not_trained_on() -> None:
    pictures = {**discs(7), "other": discs(5)["discs"]}
    apart, kept = held_out(pictures, 2), kept_for_training(pictures, 2)
    for name, members in pictures.items():
        assert (len(apart[name]), len(kept[name])) == (2, len(members) - 2)
        assert {id(each) for each in apart[name]}.isdisjoint(id(each) for each in kept[name])
    assert kept_for_training(pictures, 0) == pictures


def test_validation_scores_the_answers_to_each_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(write_data_set(tmp_path / "data"), tmp_path / "packed.npz")
    monkeypatch.setattr(validate, "HELD_OUT", 3)
    monkeypatch.setattr(validate, "_TOGETHER", 1)
    monkeypatch.setattr(validate, "_SCENES", 1)
    state = initial_state(TINY, decoder_state(), torch.randn(100, 3, 8, 8))

    scores = validate.validate(state, tmp_path / "packed.npz", 64)

    assert list(scores) == ["discs", "photographs", "scenes"]
    found = scores["discs"]
    assert found["objects"] == 3 * 8
    assert found == scores["photographs"]
    assert found["oracle"] >= found["point"]
    # Two of the three discs are whole: an ellipse in the box is nearly right, and one in a corner is a quarter.
    assert 0.75 < found["ellipse"] < 1
    assert all(0 <= found[name] <= 1 for name in ("box", "point", "point3", "other", "stable_box"))


def test_validation_compares_with_another_pictures_embedding() -> None:
    """A model whose mask is the sign of its tokens: right with its own picture, wrong with the other."""
    from training.rounds import Objects

    side, low = 16, 8
    targets = torch.zeros(16, low, low)
    targets[:8, :, :4], targets[8:, :, 4:] = 1, 1
    tokens = (2 * targets - 1).flatten(1)[..., None]
    objects = Objects(
        tokens, targets, torch.full((16, 2), 4.0), torch.tensor([[0.0, 0, 15, 15]] * 16), torch.ones(16) > 0
    )

    class Copy:
        def decode(self, tokens: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
            return tokens.reshape(16, 1, low, low).expand(-1, 4, -1, -1), torch.ones(16, 4)

    model = Copy()
    model.side = side  # type: ignore[attr-defined]
    scores = validate._asked(model, objects)  # type: ignore[arg-type]
    assert (scores["box"].mean(), scores["other"].mean()) == (1.0, 0.0)
