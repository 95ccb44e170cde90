"""`training/rehearsal.py`: which sides are compiled, and which stages are timed. Models are stand-ins."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from training_fixtures import TINY, write_data_set

from samrt.errors import InputError
from training import rehearsal
from training.pack import pack
from training.rehearsal import Rehearsed, rehearse
from training.samples import Batch, BatchMaker


@pytest.fixture
def make(tmp_path: Path) -> BatchMaker:
    pack(write_data_set(tmp_path / "data"), tmp_path / "packed.npz")
    return BatchMaker(tmp_path / "packed.npz", TINY)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that goes on by what a step takes."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(rehearsal, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def _rehearse(
    make: BatchMaker, clock: SimpleNamespace, error: Exception | None, limit: float | None, first: int = 0
) -> tuple[Rehearsed, list[tuple[int, int, bool, int]]]:
    """With steps that fail after ten seconds where they are compiled, by `error`.

    Returns also what steps were done: side, stage, compiled, rounds.
    """
    done = []

    def prepare(side: int, compiled: bool) -> tuple[Any, Any]:
        def step(index: int, batch: Batch) -> None:
            done.append((side, index, compiled, batch.rounds))
            clock.now += 0.01 * batch.rounds
            if compiled and error:
                clock.now += 10
                raise error

        return SimpleNamespace(side=side, compiled=compiled), step

    return rehearse(TINY, make, first, prepare, None if limit is None else clock.now + limit), done


def test_all_stages_are_compiled_and_timed_with_every_number_of_rounds(
    make: BatchMaker, clock: SimpleNamespace
) -> None:
    found, done = _rehearse(make, clock, None, 100.0)

    assert list(found.compiled) == list(found.models) == [64, 32]  # the largest first
    assert all(compiled for _, _, compiled, _ in done)
    assert {(side, index, rounds) for side, index, _, rounds in done} == {
        (32, 0, 1),
        (32, 1, 1),
        (32, 1, 2),
        (64, 2, 1),
        (64, 2, 2),
    }
    assert [times.slowest for times in found.times] == pytest.approx([0.01, 0.02, 0.02])
    assert [times.mean for times in found.times] == pytest.approx([0.01, 0.015, 0.015])


@pytest.mark.parametrize(
    ("error", "limit"), [(RuntimeError("no compiler"), 100.0), (None, -1.0), (None, None)], ids=str
)
def test_a_step_that_cannot_be_compiled_runs_uncompiled(
    make: BatchMaker,
    clock: SimpleNamespace,
    error: Exception | None,
    limit: float | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, done = _rehearse(make, clock, error, limit)

    assert found.compiled == {}
    assert [(model.side, model.compiled) for model in found.models.values()] == [(64, False), (32, False)]
    assert all(times.mean > 0 for times in found.times)
    told = capsys.readouterr().err
    assert told.count("is not compiled") == (0 if limit is None else 2)
    assert ("no compiler" in told) == bool(error)
    if error is None:
        assert not any(compiled for _, _, compiled, _ in done)


@pytest.mark.parametrize("error", [InputError("the data"), torch.OutOfMemoryError("the data")], ids=str)
def test_an_error_of_the_run_itself_is_no_reason_to_try_again(
    make: BatchMaker, clock: SimpleNamespace, error: Exception
) -> None:
    with pytest.raises(type(error), match="the data"):
        _rehearse(make, clock, error, 100.0)


def test_a_side_that_failed_tells_how_long_the_next_may_take(make: BatchMaker, clock: SimpleNamespace) -> None:
    found, done = _rehearse(make, clock, RuntimeError("no compiler"), 15.0)

    assert not found.compiled
    assert {side for side, _, compiled, _ in done if compiled} == {64}


@pytest.mark.parametrize("deaf", [False, True])
def test_a_side_that_is_not_compiled_by_then_goes_uncompiled(make: BatchMaker, deaf: bool) -> None:
    """Whatever compiles it is broken off, and again where it let that pass."""
    begun = time.monotonic()

    def prepare(side: int, compiled: bool) -> tuple[Any, Any]:
        def step(index: int, batch: Batch) -> None:
            if compiled and deaf:
                with suppress(Exception):
                    time.sleep(30)
            if compiled:
                time.sleep(30)

        return SimpleNamespace(side=side, compiled=compiled), step

    before = signal.getsignal(signal.SIGALRM)
    found = rehearse(TINY, make, 0, prepare, begun + 0.5)

    assert time.monotonic() - begun < 20
    assert not found.compiled
    assert not any(model.compiled for model in found.models.values())
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) == before


def test_stages_that_are_over_are_not_rehearsed(make: BatchMaker, clock: SimpleNamespace) -> None:
    found, done = _rehearse(make, clock, None, None, first=1)

    assert {index for _, index, _, _ in done} == {1, 2}
    assert [times.mean > 0 for times in found.times] == [False, True, True]
