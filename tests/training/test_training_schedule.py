"""`training/schedule.py`: how long stages last and how high their rates are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from training.recipes import RECIPES, Stage
from training.schedule import LEAST_STEPS, ByClock, BySteps, Pace, StepTime, TooShortError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _stage(steps: int, warmup: int = 1, cooldown: int = 0) -> Stage:
    return Stage(64, images=1, objects=1, steps=steps, encoder_lr=1.0, decoder_lr=0.5, warmup=warmup, cooldown=cooldown)


STAGES = (_stage(100, warmup=10), _stage(200, warmup=20), _stage(100, warmup=10, cooldown=80))
TIMES = (StepTime(0.1, 0.1), StepTime(0.1, 0.1), StepTime(0.2, 0.2))  # parts of 1/5, 2/5, 2/5
FRESH: dict[str, Any] = {"stage": 0, "step": 0}


def _run(
    clock: Clock, schedule: ByClock, duration: Callable[[int, int], float], kept: dict[str, Any] = FRESH, stop: int = -1
) -> tuple[list[list[tuple[float, Pace]]], dict[str, Any]]:
    """Each stage's steps with the moments when they begin, and the checkpoint of the last, or of the one numbered."""
    done: list[list[tuple[float, Pace]]] = []
    for index in range(kept["stage"], len(STAGES)):
        done.append([])
        for pace in schedule.paces(index, kept if index == kept["stage"] else FRESH):
            done[-1].append((clock.now, pace))
            clock.now += duration(index, pace.step)
            state = schedule.to_keep(pace)
            if state is not None:
                ahead = {"stage": index + 1, "step": 0} if pace.last else {"stage": index, "step": pace.step + 1}
                stopped = {**ahead, **state}
            if sum(map(len, done)) == stop:
                return done, stopped
    return done, stopped


def test_by_steps_rates_rise_hold_and_fall() -> None:
    paces = list(BySteps([_stage(100, warmup=10, cooldown=20)]).paces(0, FRESH))

    levels = [pace.factor for pace in paces]
    assert [round(levels[step], 3) for step in (0, 9, 50, 80, 90, 99)] == [0.1, 1, 1, 1, 0.5, 0.05]
    assert [pace.last for pace in paces] == [False] * 99 + [True]


def test_by_the_clock_stages_have_their_parts_and_the_last_ends_at_zero() -> None:
    clock = Clock()
    schedule = ByClock(STAGES, TIMES, 1100.0, FRESH, {"seconds": 100}, clock)

    stages, kept = _run(clock, schedule, lambda index, step: (0.1, 0.1, 0.2)[index])

    assert [stage[0][0] for stage in stages] == pytest.approx([1000, 1020, 1060], abs=0.3)
    assert [len(stage) for stage in stages] == pytest.approx([200, 400, 200], abs=3)
    assert 1099.5 < clock.now <= 1100
    levels = [[pace.factor for _, pace in stage] for stage in stages]
    assert all(stage[0] < 0.2 for stage in levels)
    assert levels[0][30] == levels[1][60] == levels[2][30] == 1
    assert levels[0][-1] == levels[1][-1] == 1
    assert levels[2][100] == pytest.approx(0.5 / 0.8, abs=0.02)
    assert all(before > after for before, after in pairwise(levels[2][50:]))
    assert 0 < levels[2][-2] < 0.02
    assert levels[2][-1] == 0
    assert kept["clock"]["steps"] == [len(stage) for stage in stages]
    assert kept["clock"]["ends"] == pytest.approx([0.2, 0.6, 1.0])
    assert kept["clock"]["calls"] == [{"seconds": 100}]


@pytest.mark.parametrize("slower", [3.0, 20.0, 40.0])
def test_steps_slower_than_rehearsed_end_in_time_all_the_same(slower: float) -> None:
    clock = Clock()
    schedule = ByClock(STAGES, TIMES, 1100.0, FRESH, {}, clock)

    stages, _ = _run(clock, schedule, lambda index, step: slower * TIMES[index].mean * (1 if step % 2 else 0.5))

    assert clock.now <= 1100
    assert all(stages)
    assert len(stages[-1]) >= LEAST_STEPS
    assert [pace.last for stage in stages for _, pace in stage].count(True) == 3
    assert stages[-1][-1][1].factor == 0


def test_a_slow_step_now_and_then_does_not_go_past_the_end() -> None:
    for every in range(2, 20):
        clock = Clock()
        schedule = ByClock(STAGES, TIMES, 1100.0, FRESH, {}, clock)
        _run(clock, schedule, lambda index, step, every=every: 1.0 if step % every == 0 else 0.1)
        assert clock.now <= 1100


def test_a_step_longer_than_its_stage_takes_from_the_next_ones() -> None:
    clock = Clock()
    schedule = ByClock(STAGES, TIMES, 1100.0, FRESH, {}, clock)

    # From the first stage on to the middle of the third, so that nothing is left of the second.
    stages, kept = _run(clock, schedule, lambda index, step: 80.0 if (index, step) == (0, 5) else 0.1)

    # A stage's end is seen before its last step, so one more is done.
    assert [len(stage) for stage in stages[:2]] == [7, 1]
    assert len(stages[2]) == pytest.approx(195, abs=5)
    levels = [pace.factor for _, pace in stages[2]]
    assert levels[0] < 0.3  # it has a warm-up and a cooldown of its own, in what is left
    assert levels[25] == 1
    assert levels[-1] == 0
    assert clock.now <= 1100
    assert kept["clock"]["steps"] == [len(stage) for stage in stages]


def test_a_stage_with_no_time_left_is_known_by_its_steps() -> None:
    clock = Clock()
    schedule = ByClock(STAGES, TIMES, 1100.0, FRESH, {}, clock)

    stages, kept = _run(clock, schedule, lambda index, step: 99.8 if (index, step) == (0, 0) else 0.1)

    assert [len(stage) for stage in stages] == [2, 1, 1]
    assert stages[2][0][1].factor == 0
    assert kept["clock"]["steps"][-1] < LEAST_STEPS


def test_too_short_a_time_is_told_with_what_is_needed() -> None:
    clock = Clock()
    with pytest.raises(TooShortError) as error:
        ByClock(STAGES, TIMES, 1001.0, FRESH, {}, clock)
    # Three steps of 0.1 s in a fifth of the time, three of 0.2 s in two fifths.
    assert error.value.needed == pytest.approx(1.5)

    stages, _ = _run(clock, ByClock(STAGES, TIMES, 1001.51, FRESH, {}, clock), lambda index, step: TIMES[index].mean)
    assert min(len(stage) for stage in stages) >= LEAST_STEPS - 1
    assert stages[-1][-1][1].factor == 0


def test_a_stopped_run_goes_on_in_the_stage_where_it_was() -> None:
    clock = Clock()
    first = ByClock(STAGES, TIMES, 1100.0, FRESH, {"seconds": 100}, clock)
    _, kept = _run(clock, first, lambda index, step: 1.0, stop=50)
    assert kept["stage"] == 1
    assert kept["step"] > 20

    clock.now = 5000.0
    times = [StepTime(0, 0), *TIMES[1:]]
    schedule = ByClock(STAGES, times, 5050.0, kept, {"seconds": 60}, clock)
    stages, again = _run(clock, schedule, lambda index, step: 0.1, kept)

    # Half of the schedule is left, a tenth of it in the second stage, and 50 seconds are for it.
    assert kept["clock"]["progress"] == pytest.approx(0.5, abs=0.02)
    assert [stage[0][0] for stage in stages] == pytest.approx([5000, 5010], abs=2)
    assert stages[0][0][1].step == kept["step"]
    assert stages[0][0][1].factor == 1  # it had its warm-up
    assert stages[1][-1][1].factor == 0
    assert 5049 < clock.now <= 5050
    assert again["clock"]["steps"][1] == stages[0][-1][1].step + 1
    assert again["clock"]["ends"] == kept["clock"]["ends"]
    assert [call["seconds"] for call in again["clock"]["calls"]] == [100, 60]


def test_a_run_stopped_near_its_end_needs_no_more_than_the_last_steps() -> None:
    clock = Clock()
    first = ByClock(STAGES, TIMES, 1100.0, FRESH, {}, clock)
    _, kept = _run(clock, first, lambda index, step: 1.0, stop=96)
    assert kept["stage"] == 2

    schedule = ByClock(STAGES, TIMES, clock.now + 0.7, kept, {}, clock)
    stages, _ = _run(clock, schedule, lambda index, step: 0.2, kept)
    assert stages[-1][-1][1].factor == 0
    with pytest.raises(TooShortError):
        ByClock(STAGES, TIMES, clock.now + 0.5, kept, {}, clock)


def test_every_recipe_can_go_by_the_clock() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.stages[-1].cooldown, name
        assert not any(stage.cooldown for stage in recipe.stages[:-1]), name
        assert all(stage.warmup + stage.cooldown <= stage.steps for stage in recipe.stages), name
