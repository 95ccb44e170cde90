"""`training/teacher.py`: what is taught is what LiteMedSAM's encoder says, and how far a student is from it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from seeded import normal
from training_fixtures import TINY, decoder_state

from samrt.manifest import Normalization
from samrt.transforms import normalize_and_pad
from samrt_export.families.lite_medsam import build
from training.teacher import Lesson, Teacher, imitation_loss, lessons


def test_it_teaches_what_lite_medsam_makes_of_the_image() -> None:
    pixels = np.random.default_rng(0).integers(20, 200, (160, 256, 3), dtype=np.uint8)
    padded = np.full((1, 3, 256, 256), 255, np.uint8)  # what lies in the padding must not matter
    padded[0, :, :160] = pixels.transpose(2, 0, 1)
    valid = torch.zeros(1, 1, 256, 256, dtype=torch.bool)
    valid[:, :, :160] = True
    state = decoder_state()

    lesson = Teacher(state, torch.device("cpu")).teach(torch.from_numpy(padded), valid, 32)

    prepared = torch.from_numpy(normalize_and_pad(pixels, 256, Normalization("min_max")))
    expected = F.avg_pool2d(build(state, None).sam.image_encoder(prepared), 2).flatten(2).transpose(1, 2)
    error = (lesson.taught.float() - expected).norm() / expected.norm()
    assert error < 0.03  # bfloat16 has 8 bits; float32 without the normalisation's care gives 0.3 and more


def _lesson(taught: torch.Tensor, rows: int) -> Lesson:
    valid = torch.zeros(len(taught), 1, 32, 32, dtype=torch.bool)
    valid[:, :, :rows] = True
    return Lesson(torch.zeros(len(taught), 3, 32, 32, dtype=torch.uint8), valid, taught)


def test_the_loss_is_the_part_of_the_variance_that_is_missed() -> None:
    lesson = _lesson(normal(2, 16, 8) + 3, rows=32)
    mean = lesson.taught.mean((0, 1)).expand_as(lesson.taught)

    assert float(imitation_loss(lesson.taught, lesson)["loss"]) == 0
    assert torch.isclose(imitation_loss(mean, lesson)["loss"], torch.tensor(1.0))
    assert torch.isclose(imitation_loss((lesson.taught + mean) / 2, lesson)["loss"], torch.tensor(0.25))


def test_padding_is_not_learned() -> None:
    lesson = _lesson(normal(1, 16, 8), rows=16)  # the upper two of four rows of tokens
    wrong_below = lesson.taught.clone()
    wrong_below[:, 8:] += 100

    assert float(imitation_loss(wrong_below, lesson)["loss"]) == 0


def test_a_step_has_one_lesson_whatever_came_before() -> None:
    def teach(number: int) -> Lesson:
        return _lesson(torch.full((1, 16, 8), float(number)), rows=32)

    whole, rest = dict(lessons(teach, TINY, 0, 0)), dict(lessons(teach, TINY, 0, 1))

    assert (list(whole), list(rest)) == ([0, 1, 2], [1, 2])
    assert all(torch.equal(rest[step].taught, whole[step].taught) for step in rest)
    assert not list(lessons(teach, TINY, 0, 3))
