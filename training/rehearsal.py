"""Before learning by the clock: compile every stage's step, find out how long it takes, and plan by that."""

from __future__ import annotations

import math
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samrt.errors import InputError, SamrtError
from training.model import PromptableModel
from training.recipes import Recipe
from training.samples import Batch, BatchMaker
from training.schedule import LEAST_STEPS, ByClock, StepTime, TooShortError
from training.weights import write_weights

_LONG = 0.3  # seconds
_AGAIN = 2.0  # seconds after which a limit that torch let pass is told again
# For the end of the process and for what the caller does with the files, beside twice the time of writing them.
_EXIT_SECONDS = 8.0


@dataclass(frozen=True)
class Rehearsed:
    """What a rehearsal leaves: models by side, and step times of all stages (zero for those that are over).

    `compiled` holds the seconds that each compiled side took.
    """

    models: dict[int, PromptableModel]
    times: list[StepTime]
    compiled: dict[int, float]


def rehearse(
    recipe: Recipe,
    make: BatchMaker,
    first: int,
    prepare: Callable[[int, bool], tuple[PromptableModel, Callable[[int, Batch], object]]],
    compile_until: float | None,
) -> Rehearsed:
    """Do steps of each stage from `first` on, with every number of rounds; of the largest side first.

    Args:
        prepare: for a side, a model, compiled or not, and what does a step of one of its stages that changes nothing.
        compile_until: a moment of `time.monotonic`, or None to compile nothing. A side that would not be compiled by
            then, if it took as long as the longest try before it, is left uncompiled, and so is one that torch fails to
            compile or has not compiled by then; all are told.
    """
    longest = 0.0
    found = Rehearsed({}, [StepTime(0.0, 0.0) for _ in recipe.stages], {})
    # The largest gain most, and the time may not do for all.
    for side in sorted({stage.side for stage in recipe.stages[first:]}, reverse=True):
        begun = time.monotonic()
        if compile_until and begun + longest < compile_until:
            try:
                with _limit(compile_until - begun):
                    _side(found, recipe, make, first, *prepare(side, True))
            except (SamrtError, torch.OutOfMemoryError):  # uncompiled it would be no other
                raise
            except Exception as error:  # torch's compiler fails with anything
                print(f"training: torch cannot compile the step at {side} pixels: {error!r}", file=sys.stderr)
            else:
                found.compiled[side] = time.monotonic() - begun
                continue
            finally:
                longest = max(longest, time.monotonic() - begun)
        if compile_until:
            print(f"training: the step at {side} pixels is not compiled", file=sys.stderr)
        _side(found, recipe, make, first, *prepare(side, False))
    return found


class _TooLongError(Exception):
    """Not TimeoutError, which torch's compiler takes for that of a wait of its own."""


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise `_TooLongError` in what is done here, in the main thread, if it takes longer."""

    def ring(*_: object) -> None:
        raise _TooLongError("the time for compiling was up")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _side(
    found: Rehearsed,
    recipe: Recipe,
    make: BatchMaker,
    first: int,
    model: PromptableModel,
    step: Callable[[int, Batch], object],
) -> None:
    found.models[model.side] = model
    for index, stage in enumerate(recipe.stages):
        if index < first or stage.side != model.side:
            continue
        batch = make.draw(np.random.default_rng([recipe.seed, 2**21, index]), index)
        most = len(recipe.rounds) if stage.task == "prompts" else 1
        step(index, replace(batch, rounds=most))  # compiles: each round has its own number of points
        seconds = [_seconds(step, index, replace(batch, rounds=rounds)) for rounds in range(1, 1 + most)]
        mean = float(np.dot(seconds, recipe.rounds)) if len(seconds) > 1 else seconds[0]
        found.times[index] = StepTime(mean, max(seconds))
        shown = ", ".join(f"{value:.3f}" for value in seconds)
        print(f"stage {index} ({stage.side} pixels): {shown} s a step by rounds", file=sys.stderr, flush=True)


def _seconds(step: Callable[[int, Batch], object], index: int, batch: Batch) -> float:
    """Of a step: the shorter of two, or of one that is long."""
    seconds: list[float] = []
    while len(seconds) < 2 and sum(seconds) < _LONG:
        begun = time.monotonic()
        step(index, batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - begun)
    return min(seconds)


def plan(
    recipe: Recipe,
    rehearsed: Rehearsed,
    kept: Mapping[str, Any],
    folder: Path,
    started: float,
    seconds: float,
) -> ByClock:
    """The schedule of a call that began at `started`, goes on from the checkpoint `kept` and ends in `seconds`.

    Raises:
        InputError: the seconds do not hold it; it says how many would do.
    """
    reserved = _EXIT_SECONDS + 2 * _writing_seconds(kept["state"], 4 if recipe.averaged else 3, folder)
    startup = time.monotonic() - started
    call = {
        "seconds": seconds,
        "startup_seconds": round(startup, 2),
        "compile_seconds": {str(side): round(taken, 2) for side, taken in rehearsed.compiled.items()},
        "reserved_seconds": round(reserved, 2),
    }
    try:
        return ByClock(recipe.stages, rehearsed.times, started + seconds - reserved, kept, call, time.monotonic)
    except TooShortError as error:
        raise InputError(
            f"{seconds:.0f} seconds are too few: start and rehearsal took {startup:.0f} s, {reserved:.0f} s are "
            f"reserved for the end, and the minimum of {LEAST_STEPS} steps in every stage takes "
            f"{error.needed:.0f} s; give {math.ceil(1.1 * (startup + reserved + error.needed))} seconds or more"
        ) from error


def _writing_seconds(state: Mapping[str, Tensor], number: int, folder: Path) -> float:
    """How long it takes to write weights and a checkpoint, which holds so many numbers for each weight."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        write_weights(state, Path(temporary) / "model.pth")
        copies = [{name: tensor.clone() for name, tensor in state.items()} for _ in range(number)]
        torch.save(copies, Path(temporary) / "checkpoint.pt")
    return time.monotonic() - begun
