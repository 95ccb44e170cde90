"""Compares every kernel with a reference before any of them is timed.

At small sizes: the checks that CI runs on the kernels' source on the CPU. At the models' sizes: against float64,
computed on the device. Each part has its own process, and all run in parallel.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import kernel_library
from isolated import FINISHED, Isolated, WorkerError
from work import Work, WrongResultError
from workers.checks import ABSENT, ATTENTION, CHECKS, PARTS, PASSED, SELF_TEST

_TOLD = 1000


def run(work: Work) -> None:
    kernel_library.use(work)
    # The self test needs no packages, and takes a minute on the CPU.
    parts = [part for part in PARTS if not (work.smoke and part == SELF_TEST)]
    with ThreadPoolExecutor(len(parts)) as pool:
        ended = [text for text in pool.map(lambda part: _run_part(work, part), parts) if text]
    found = work.of("kernels_correct")
    if not work.smoke:  # on a device, what was not checked is no success
        absent = {module: outcome.get(ABSENT) for module, outcome in found.get(CHECKS, {}).items()}
        absent[ATTENTION] = found.get(f"{ATTENTION} {ABSENT}")
        ended += [f"{part} was not checked: {why}" for part, why in absent.items() if why]
    wrong = [SELF_TEST] if found.get(SELF_TEST, PASSED) != PASSED else []
    for module, outcome in found.get(CHECKS, {}).items():
        wrong += [f"{module}, {name}" for name, value in outcome.get("checks", {}).items() if value != PASSED]
    for kernel, outcomes in found.get(ATTENTION, {}).items():
        wrong += [f"{kernel}, {case}" for case, value in outcomes.items() if "error" in value]
    work.record("wrong", value=wrong)
    if wrong or ended:
        raise WrongResultError(
            "; ".join([*ended, *([f"{len(wrong)} wrong: {'; '.join(wrong)}"] if wrong else [])])[:_TOLD]
        )


def passed(work: Work, module: str) -> bool:
    """Whether this phase ran all of that module of tests/kernels and found nothing wrong."""
    found = work.of("kernels_correct").get(CHECKS, {}).get(module, {})
    outcomes = found.get("checks", {})
    return len(outcomes) == found.get("of") and all(value == PASSED for value in outcomes.values())


def _run_part(work: Work, part: str) -> str:
    """Why it did not finish; empty if it did."""
    worker = Isolated(work, "checks", {"part": part}, silence_s=40)
    with contextlib.suppress(WorkerError):
        work.take(worker)
    work.record("processes", part, value=worker.account)
    return "" if worker.ended == FINISHED else f"{part}: {worker.ended}"
