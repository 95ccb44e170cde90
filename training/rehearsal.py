"""Before learning by the clock: compile every stage's step, and find out how long it takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from samrt.errors import SamrtError
from training.model import PromptableModel
from training.recipes import Recipe
from training.samples import Batch, BatchMaker
from training.schedule import StepTime

_LONG = 0.3  # seconds


@dataclass(frozen=True)
class Stages:
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
) -> Stages:
    """Do steps of each stage from `first` on, with every number of rounds.

    Args:
        prepare: for a side, a model, compiled or not, and what does a step of one of its stages that changes nothing.
        compile_until: a moment of `time.monotonic`, or None to compile nothing. A side that would not be compiled by
            then, if it took as long as the slowest before it, is left uncompiled, and so is one that torch fails to
            compile; both are told.
    """
    found = Stages({}, [StepTime(0.0, 0.0) for _ in recipe.stages], {})
    for side in dict.fromkeys(stage.side for stage in recipe.stages[first:]):
        begun = time.monotonic()
        if compile_until and begun + max(found.compiled.values(), default=0.0) < compile_until:
            try:
                _side(found, recipe, make, first, *prepare(side, True))
            except SamrtError:
                raise
            except Exception as error:  # torch's compiler fails with anything
                print(f"training: torch cannot compile the step at {side} pixels: {error!r}", file=sys.stderr)
            else:
                found.compiled[side] = time.monotonic() - begun
                continue
        if compile_until:
            print(f"training: {side} pixels go uncompiled", file=sys.stderr)
        _side(found, recipe, make, first, *prepare(side, False))
    return found


def _side(
    found: Stages,
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
