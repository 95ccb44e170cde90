"""`training/step.py`: a batch that does not fit into the memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from seeded import normal
from training_fixtures import TINY, decoder_state, discs

from training.model import PromptableModel, initial_state
from training.samples import make_batch
from training.step import Gradients, split

STAGE = replace(TINY.stages[2], images=3)
BATCH = replace(make_batch(np.random.default_rng(0), discs(), TINY, STAGE), rounds=1)


class Small:
    """A model that runs out of memory with more than so many images, in the rest of which it is `model`."""

    def __init__(self, model: PromptableModel, most: int) -> None:
        self._encode, self._most = model.encode, most
        model.encode = self.encode  # type: ignore[method-assign]

    def encode(self, images: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        if len(images) > self._most:
            raise torch.OutOfMemoryError("full")
        return self._encode(images, valid)


def _model() -> PromptableModel:
    return PromptableModel(initial_state(TINY, decoder_state(), normal(100, 3, 8, 8)), 64)


def _gradients(model: PromptableModel, gradients: Gradients) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    figures = gradients(model, BATCH, torch.Generator().manual_seed(0), STAGE)
    return figures, [each.grad.clone() for each in model.parameters() if each.grad is not None]


def test_a_batch_is_done_in_parts_that_fit_and_gives_the_same_gradients(capsys: pytest.CaptureFixture[str]) -> None:
    whole, small = _model(), _model()
    _, expected = _gradients(whole, Gradients(torch.device("cpu")))
    Small(small, 1)
    gradients = Gradients(torch.device("cpu"))
    figures, found = _gradients(small, gradients)

    assert gradients.parts == {STAGE: 3}
    assert "in 3 parts" in capsys.readouterr().err
    assert all(torch.isfinite(value) for value in figures.values())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.02 * float(other.abs().max()))  # bfloat16
    _gradients(small, gradients)  # does not try the whole again
    assert capsys.readouterr().err == ""


def test_an_image_that_does_not_fit_is_an_error() -> None:
    model = _model()
    Small(model, 0)
    with pytest.raises(torch.OutOfMemoryError):
        _gradients(model, Gradients(torch.device("cpu")))


def test_the_parts_of_a_batch_are_all_of_it() -> None:
    parts = list(split(BATCH, 2))
    assert [len(part.images) for part in parts] == [1, 2]
    assert np.array_equal(np.concatenate([part.targets for part in parts]), BATCH.targets)
    assert {part.rounds for part in parts} == {1}
