"""Times of the kernels beside torch's and their floors, compared with the goals."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import floors
import goals
import image_timing
import kernel_checks
import kernel_library
from driver import Driver
from isolated import SLOWNESS, Isolated
from timing import Clock
from work import Work
from workers.checks import ATTENTION

from phases import kernels_correct
from samrt.kernels.library import Kernels

_SMOKE_SIZES = image_timing.Sizes(original=(48, 64), image_size=32, low_res=8, masks=(2,))
_SECONDS, _SMOKE_SECONDS = 0.1, 0.01
_IMAGES_S = 12  # kept for the images


def run(work: Work) -> None:
    kernels = kernel_library.use(work)
    driver = None if work.smoke else Driver()
    if driver is not None:
        work.record("between two events alone", value=Clock(driver).measure(lambda: None, _SECONDS)["gpu_ms"])
    try:
        if importlib.util.find_spec("torch") is None:
            work.record(ATTENTION, value={"absent": "torch is not installed"})
        else:
            _measure_layers(work)
    finally:
        _measure_images(work, kernels, driver)


def _measure_layers(work: Work) -> None:
    """In its own process. Before the image kernels, because a faulty one may end this process."""
    seconds = work.seconds_left - _IMAGES_S * float(os.environ.get(SLOWNESS, "1"))
    # flex_attention is compiled in between.
    worker = Isolated(work, "layers", silence_s=90, seconds=seconds)
    try:
        for keys, value in worker:
            work.take([(keys, value)])
            if "times" in keys:
                _conclude(work, keys[1])
    finally:
        work.record("layers' process", value=worker.account)


def _conclude(work: Work, layer: str) -> None:
    found = work.of("kernels_time")[ATTENTION][layer]
    times = {name: outcome["ms"] for name, outcome in found["times"].items() if "ms" in outcome}
    failed = {name for name, outcome in found["times"].items() if "error" in outcome}
    value = goals.of_layer("windows" in layer, times, found.get("floor", {}).get("ms"), failed)
    work.record(ATTENTION, layer, "goals", value=value)


def _measure_images(work: Work, kernels: Kernels, driver: Driver | None) -> None:
    stream = 0 if driver is None else driver.new_stream()
    clock, sizes = Clock(driver, stream), _SMOKE_SIZES if work.smoke else image_timing.Sizes()
    for name, jobs in (("check_image", image_timing.preprocessing), ("check_masks", image_timing.postprocessing)):
        if not (work.smoke or kernels_correct.passed(work, name)):
            work.record(jobs.__name__, value={"absent": f"tests/kernels/{name}.py did not pass; see kernels_correct"})
            continue
        try:
            with kernel_checks.memory(driver) as memory:
                for job in jobs(kernels, memory, sizes, stream):
                    work.attempt(jobs.__name__, job.name, call=lambda job=job: _time_image(work, clock, job))
        except Exception as error:  # giving memory back fails too after an illegal access
            work.take([((jobs.__name__, "the rest"), {"error": f"{type(error).__name__}: {error}"})])


def _time_image(work: Work, clock: Clock, job: image_timing.Job) -> dict[str, Any]:
    measured = clock.measure(job.call, _SMOKE_SECONDS if work.smoke else _SECONDS)
    if job.moved_bytes is None:
        return measured
    floor = floors.at_rates(work.of("floors"), 0, job.moved_bytes)
    time = measured.get("gpu_ms", {}).get("median")
    return {**measured, "floor": floor, "goals": goals.of_image_kernel(time, floor.get("ms"))}
