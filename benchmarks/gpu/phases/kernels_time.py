"""Times of the kernels beside torch's and their floors, and how they stand to the goals."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import floors
import goals
import image_timing
import kernel_checks
import kernel_library
from driver import Driver
from kernel_library import AttentionKernel
from timing import Clock
from work import Work

from phases import kernels_correct
from samrt.kernels import Kernels

_GRID, _SMOKE_GRID, _WINDOW = 64, 4, 14
_SMOKE_SIZES = image_timing.Sizes(original=(48, 64), image_size=32, low_res=8, masks=(2,))
_SECONDS, _SMOKE_SECONDS = 0.1, 0.01
_LEAST_S, _LEAST_TO_COMPILE_S = 5, 25  # not begun with less left
_MOST_DIFFERENCE = 0.02  # relative, from float32; half precision makes a tenth of it


@dataclass(frozen=True)
class Layer:
    """An attention layer of a released model."""

    model: str
    heads: int
    head_dim: int
    batch: int
    window: int

    def __str__(self) -> str:
        kind = f"windows {self.window}" if self.window else "global"
        return f"{self.model}, {kind}, {self.heads} heads of {self.head_dim}, batch {self.batch}"


def run(work: Work) -> None:
    kernels = kernel_library.use(work)
    driver = None if work.smoke else Driver()
    has_torch = importlib.util.find_spec("torch") is not None
    if has_torch:
        _prepare(driver)
    if driver is not None:
        work.record("between two events alone", value=Clock(driver).measure(lambda: None, _SECONDS)["gpu_ms"])
    _measure_images(work, kernels, driver)
    if not has_torch:
        work.record("attention", value={"absent": "torch is not installed"})
        return
    correct = kernels_correct.found_correct(work, kernel_library.attention_kernels(kernels))
    for layer in _layers(work.smoke):
        _measure_layer(work, driver, layer, [one for one in correct if one.precision == "fp16"])
    if driver is not None:
        for layer in _layers(work.smoke):
            _measure_flex(work, driver, layer)


def _measure_images(work: Work, kernels: Kernels, driver: Driver | None) -> None:
    stream = 0 if driver is None else driver.new_stream()
    clock, sizes = Clock(driver, stream), _SMOKE_SIZES if work.smoke else image_timing.Sizes()
    for name, jobs in (("check_image", image_timing.preprocessing), ("check_masks", image_timing.postprocessing)):
        if not (work.smoke or kernels_correct.passed(work, name)):
            work.record(jobs.__name__, value={"absent": f"tests/kernels/{name}.py did not pass; see kernels_correct"})
            continue
        with kernel_checks.memory(driver) as memory:
            for job in jobs(kernels, memory, sizes, stream):
                work.attempt(jobs.__name__, job.name, call=lambda job=job: _time_image(work, clock, job))


def _time_image(work: Work, clock: Clock, job: image_timing.Job) -> dict[str, Any]:
    measured = clock.measure(job.call, _SMOKE_SECONDS if work.smoke else _SECONDS)
    if job.moved_bytes is None:
        return measured
    floor = floors.at_rates(work.of("floors"), 0, job.moved_bytes)
    time = measured.get("gpu_ms", {}).get("median")
    return {**measured, "floor": floor, "goals": goals.of_image_kernel(time, floor.get("ms"))}


def _layers(smoke: bool) -> list[Layer]:
    """The most wanted first."""
    models = [("ViT-B", 12, 64), ("ViT-H", 16, 80), ("ViT-L", 16, 64)]
    if smoke:
        return [Layer("one head", 1, 64, 1, window) for window in (0, _WINDOW)]
    order = [(model, batch) for batch in (1, 8) for model in models]
    return [Layer(*model, batch, window) for model, batch in order for window in (0, _WINDOW)]


def _prepare(driver: Driver | None) -> None:
    import torch

    if driver is None:
        torch.set_num_threads(1)  # others may be at work on a small machine
        return
    # Clocks rise with work.
    a = torch.randn(4096, 4096, device="cuda", dtype=torch.float16)
    for _ in range(500):
        a @ a
    torch.cuda.synchronize()


def _make(layer: Layer, smoke: bool) -> Any:
    from torch_attention import Case, make_inputs

    side = _SMOKE_GRID if smoke else _GRID
    case = Case(str(layer), side, side, layer.window, layer.batch, layer.heads)
    return make_inputs(case, "fp16", layer.head_dim, with_bias=True, device="cpu" if smoke else "cuda")


def _measure_layer(work: Work, driver: Driver | None, layer: Layer, correct: list[AttentionKernel]) -> None:
    import attention_peers

    keys = ("attention", str(layer))
    if work.seconds_left < _LEAST_S:
        work.record(*keys, value={"absent": f"{work.seconds_left:.0f} s were left"})
        return
    inputs = _make(layer, work.smoke)
    operations, moved = attention_peers.operations(inputs), attention_peers.moved_bytes(inputs)
    work.record(*keys, "floor", value=floors.at_rates(work.of("floors"), operations, moved))
    # On the host the table's choice will do.
    fitting = [one for one in correct if one.head_dim == layer.head_dim and (one.tile < 0 or not work.smoke)]
    ours = attention_peers.of_samrt(inputs, fitting)
    contenders = {**{name: lambda call=call: call for name, call in ours.items()}, **attention_peers.of_torch(inputs)}
    times = {}
    for name, make in contenders.items():
        found = work.attempt(
            *keys, "times", name, call=lambda make=make, name=name: _time(work, driver, inputs, name, make())
        )
        if found is not None and "ms" in found:
            times[name] = found["ms"]
    work.record(*keys, "goals", value=goals.of_layer(bool(layer.window), times))


def _measure_flex(work: Work, driver: Driver, layer: Layer) -> None:
    from attention_peers import FLEX, compiled_flex

    keys = ("attention", str(layer), "times", FLEX)
    if work.seconds_left < _LEAST_TO_COMPILE_S:
        work.record(*keys, value={"absent": f"{work.seconds_left:.0f} s were left"})
        return
    inputs = _make(layer, work.smoke)
    work.attempt(*keys, call=lambda: _time(work, driver, inputs, FLEX, compiled_flex(inputs)))


def _time(work: Work, driver: Driver | None, inputs: Any, name: str, call: Callable[[], Any]) -> dict[str, Any]:
    """Compare the first image with float32, then time."""
    import torch
    from attention_peers import float32_reference
    from torch_timing import measure

    with torch.inference_mode():
        expected = float32_reference(inputs, with_bias="without bias" not in name)
        difference = float((call()[:1].float() - expected).norm() / expected.norm())
        if not difference < _MOST_DIFFERENCE:
            raise ValueError(f"differs from float32 by {difference:.3g}: not timed")
        found = measure(call, driver, _SMOKE_SECONDS if work.smoke else _SECONDS)
    if driver is not None:
        torch.cuda.empty_cache()
    return {"relative_l2_to_float32": difference, **found}
