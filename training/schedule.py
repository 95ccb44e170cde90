"""How long the stages of a run last and how high their rates are: by counting steps, or by the clock.

By the clock, a recipe's steps are proportions. The training time of a call is divided among the stages, so that their
steps would have these proportions if each took as long as in the rehearsal (`training.rehearsal`). *Progress* runs
from 0 to 1 over that time. The ends of stages, warm-up and cooldown are at fixed values of progress, however long the
steps take.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from samrt.errors import InputError
from training.recipes import Stage

_KEPT_EVERY = 100  # steps
_KEPT_EVERY_SECONDS = 30.0  # by the clock
_KEPT_AFTER_SECONDS = 240.0  # by steps, where a hundred take longer
LEAST_STEPS = 3  # in a stage by the clock; fewer hold no warm-up or no cooldown
_RECENT = 20  # steps whose longest tells how long the next may take


@dataclass(frozen=True)
class Pace:
    """A step to do.

    Attributes:
        factor: of its stage's rates.
        last: of its stage.
        figures: for the log.
    """

    step: int
    factor: float
    last: bool
    figures: Mapping[str, float]


class Schedule(Protocol):
    """The schedule of a run; `kept` is the run's checkpoint."""

    def paces(self, index: int, kept: Mapping[str, Any]) -> Iterator[Pace]:
        """The steps of a stage that are left, each asked for when the one before it is done."""
        ...

    def to_keep(self, pace: Pace) -> dict[str, Any] | None:
        """After a step: this schedule's part of a checkpoint, or None if none is due."""
        ...

    def is_over(self) -> bool:
        """Whether the call has to end before the run does."""
        ...


def factor(stage: Stage, done: float) -> float:
    """Rising over the warm-up, then constant, then, where there is a cooldown, linearly to zero at `done` = `steps`."""
    rising = min(1.0, (done + 1) / stage.warmup)
    return min(rising, (stage.steps - done) / stage.cooldown) if stage.cooldown else rising


class BySteps:
    """The numbers of steps of the recipe."""

    def __init__(self, stages: Sequence[Stage], deadline: float = math.inf) -> None:
        """A call ends after the step in which `deadline`, of `time.monotonic`, is reached."""
        self._stages, self._deadline = stages, deadline
        self._kept_at = time.monotonic()

    def paces(self, index: int, kept: Mapping[str, Any]) -> Iterator[Pace]:
        stage = self._stages[index]
        for step in range(kept["step"], stage.steps):
            yield Pace(step, factor(stage, step), step + 1 == stage.steps, {})

    def to_keep(self, pace: Pace) -> dict[str, Any] | None:
        now = time.monotonic()
        due = (pace.step + 1) % _KEPT_EVERY == 0 or now - self._kept_at > _KEPT_AFTER_SECONDS
        if not (pace.last or due or self.is_over()):
            return None
        self._kept_at = now
        return {}

    def is_over(self) -> bool:
        return time.monotonic() > self._deadline


@dataclass(frozen=True)
class StepTime:
    """Seconds of a stage's steps as rehearsed: their mean over the numbers of rounds, and the slowest."""

    mean: float
    slowest: float


class ByClock:
    """Stages and rates by the time since learning began; the last rates are zero before the time is up.

    A run that goes on has the same parts of the schedule before it that it had when it was stopped, and all of a call's
    time for them.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        times: Sequence[StepTime],
        end: float,
        kept: Mapping[str, Any],
        call: Mapping[str, Any],
        clock: Callable[[], float],
    ) -> None:
        """Learning begins now and ends at `end`, of `clock`; `call` is recorded with what the checkpoint holds.

        Raises:
            TooShortError: a stage would have fewer than `LEAST_STEPS`.
        """
        self._stages, self._times, self._clock = stages, times, clock
        state = kept.get("clock") or {
            "progress": 0.0,
            "began": 0.0,
            "ends": _ends(stages, times),
            "steps": [],
            "calls": [],
        }
        self._ends: list[float] = state["ends"]
        self._first: float = state["progress"]
        self._began: float = state["began"]  # the progress at which the present stage began
        self._steps: list[int] = [*state["steps"]]
        self._calls = [*state["calls"], dict(call)]
        self._start, self._end = clock(), end
        self._kept_at = self._start
        needed = self._least()
        if needed > end - self._start:
            raise TooShortError(needed)

    def progress(self, moment: float) -> float:
        """Of the schedule at a moment of the clock; past the end it is more than 1."""
        return self._first + (1 - self._first) * (moment - self._start) / (self._end - self._start)

    def _least(self) -> float:
        """Seconds in which each stage that has not begun, and the last, has its least number of steps."""
        begins = [0.0, *self._ends]
        last = len(self._stages) - 1
        parts = [
            (end - max(begin, self._first), time.slowest)
            for index, (begin, end, time) in enumerate(zip(begins, self._ends, self._times, strict=False))
            if begin >= self._first or index == last
        ]
        return max(LEAST_STEPS * slowest * (1 - self._first) / max(part, 1e-9) for part, slowest in parts)

    def paces(self, index: int, kept: Mapping[str, Any]) -> Iterator[Pace]:
        stage, end = self._stages[index], self._ends[index]
        if not kept["step"]:
            self._began = self.progress(self._clock())
            self._steps.append(0)
        span = max(end - self._began, 1e-9)  # nothing is left of it where the stage before took its time, too
        recent = deque([self._times[index].slowest], _RECENT)
        step, last = kept["step"], False
        while not last:
            now, longest = self._clock(), max(recent)
            last = self.progress(now + 2 * longest) > end
            part = min(1.0, (self.progress(now + longest) - self._began) / span)
            # A last step with rates of zero changes nothing: it shows in the log what the finished weights do.
            level = 0.0 if last and stage.cooldown else factor(stage, part * stage.steps)
            yield Pace(step, level, last, {"progress": self.progress(now)})
            recent.append(self._clock() - now)
            step += 1
            self._steps[index] = step

    def to_keep(self, pace: Pace) -> dict[str, Any] | None:
        now = self._clock()
        if not pace.last and now - self._kept_at < _KEPT_EVERY_SECONDS:
            return None
        self._kept_at = now
        steps = [*self._steps[:-1], pace.step + 1]
        return {
            "clock": {
                "progress": min(1.0, self.progress(now)),
                "began": self._began,
                "ends": self._ends,
                "steps": steps,
                "calls": self._calls,
            }
        }

    def is_over(self) -> bool:
        return False


class TooShortError(InputError):
    """A call's seconds do not hold a schedule, for which learning needs `needed` of them."""

    def __init__(self, needed: float) -> None:
        super().__init__(f"the stages need {needed:.1f} seconds")
        self.needed = needed


def _ends(stages: Sequence[Stage], times: Sequence[StepTime]) -> list[float]:
    """The progress at which each stage ends."""
    sums = [*accumulate(stage.steps * time.mean for stage, time in zip(stages, times, strict=True))]
    return [*(part / sums[-1] for part in sums[:-1]), 1.0]
