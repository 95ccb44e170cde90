"""`training/rehearsal.py`: which sides are compiled, and which stages are timed. Models are stand-ins."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from training_fixtures import TINY, write_data_set

from samrt.errors import InputError
from training.pack import pack
from training.rehearsal import Stages, rehearse
from training.samples import Batch, BatchMaker


@pytest.fixture
def make(tmp_path: Path) -> BatchMaker:
    pack(write_data_set(tmp_path / "data"), tmp_path / "packed.npz")
    return BatchMaker(tmp_path / "packed.npz", TINY)


def _rehearse(
    make: BatchMaker, error: Exception | None, compile_until: float | None, first: int = 0
) -> tuple[Stages, list[tuple[int, int, bool, int]]]:
    """With steps that fail where they are compiled; and what steps were done: side, stage, compiled, rounds."""
    done = []

    def prepare(side: int, compiled: bool) -> tuple[Any, Any]:
        def step(index: int, batch: Batch) -> None:
            done.append((side, index, compiled, batch.rounds))
            time.sleep(0.01 * batch.rounds)
            if compiled and error:
                raise error

        return SimpleNamespace(side=side, compiled=compiled), step

    return rehearse(TINY, make, first, prepare, compile_until), done


def test_all_stages_are_compiled_and_timed_with_every_number_of_rounds(make: BatchMaker) -> None:
    found, done = _rehearse(make, None, math.inf)

    assert list(found.compiled) == list(found.models) == [32, 64]
    assert all(compiled for _, _, compiled, _ in done)
    assert {(side, index, rounds) for side, index, _, rounds in done} == {
        (32, 0, 1),
        (32, 1, 1),
        (32, 1, 2),
        (64, 2, 1),
        (64, 2, 2),
    }
    for times in found.times[1:]:
        assert times.slowest == pytest.approx(0.02, abs=0.015)
        assert 0.01 < times.mean < times.slowest


@pytest.mark.parametrize(
    ("error", "until"), [(RuntimeError("no compiler"), math.inf), (None, 1e-9), (None, None)], ids=str
)
def test_what_cannot_be_compiled_goes_uncompiled(
    make: BatchMaker, error: Exception | None, until: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    found, done = _rehearse(make, error, until)

    assert found.compiled == {}
    assert [(model.side, model.compiled) for model in found.models.values()] == [(32, False), (64, False)]
    assert all(times.mean > 0 for times in found.times)
    told = capsys.readouterr().err
    assert told.count("go uncompiled") == (0 if until is None else 2)
    assert ("no compiler" in told) == bool(error)
    if error is None:
        assert not any(compiled for _, _, compiled, _ in done)


def test_an_error_of_the_run_itself_is_no_reason_to_try_again(make: BatchMaker) -> None:
    with pytest.raises(InputError, match="loss"):
        _rehearse(make, InputError("the loss is nan"), math.inf)


def test_stages_that_are_over_are_not_rehearsed(make: BatchMaker) -> None:
    found, done = _rehearse(make, None, None, first=1)

    assert {index for _, index, _, _ in done} == {1, 2}
    assert [times.mean > 0 for times in found.times] == [False, True, True]
