"""Times of attention layers: our kernels that were found correct beside torch's forms, each compared first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import attention_peers
import floors
import model_sizes
import torch
from driver import Driver
from goals import DEFAULT_TILE, FLEX, FLEX_APART
from isolated import Reporter
from kernel_library import AttentionKernel, attention_kernels
from torch_attention import Case, Inputs, make_inputs
from torch_timing import measure
from work import Work, WrongResultError
from workers.checks import ATTENTION

from samrt.kernels.library import load_kernels

_GRID, _WINDOW, _SMOKE_GRID, _SMOKE_WINDOW = 64, 14, 4, 3
_SECONDS, _SMOKE_SECONDS = 0.1, 0.01
_LEAST_S, _LEAST_TO_COMPILE_S = 3, 25  # not begun with less left
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


def layers(smoke: bool) -> list[Layer]:
    """The most important first. ViT-L's layers differ from ViT-B's only by four more heads."""
    if smoke:
        return [Layer("one head", 1, 64, 1, window) for window in (0, _SMOKE_WINDOW)]
    b, h, large = ("ViT-B", 12, 64), ("ViT-H", 16, 80), ("ViT-L", 16, 64)
    order = [(b, 1), (h, 1), (b, 8), (h, 8), (large, 1), (large, 8)]
    return [Layer(*model, batch, window) for model, batch in order for window in (0, _WINDOW)]


def serve(work: Work, report: Reporter) -> None:
    found = work.of("kernels_correct").get(ATTENTION, {})
    kernels = [one for one in attention_kernels(load_kernels()) if one.precision == "fp16"]
    correct = model_sizes.correct(found, kernels, work.smoke)
    # On the CPU, the default tile shape is enough.
    ours = [one for one in correct if one.tile < 0 or not work.smoke]
    if not ours:
        report.attempt(f"{ATTENTION} of samrt", call=_none_correct)
    driver = warm_driver(work.smoke)
    for layer in layers(work.smoke):
        if work.seconds_left < _LEAST_S:
            report.attempt(ATTENTION, str(layer), "absent", call=lambda: f"{work.seconds_left:.0f} s were left")
            continue
        time_layer(work, report, driver, layer, ours)


def _none_correct() -> None:
    raise WrongResultError("no attention kernel was found correct at the models' sizes; see kernels_correct")


def warm_driver(smoke: bool) -> Driver | None:
    """The device, after a warm-up that raises its clocks; None without a GPU."""
    if smoke:
        torch.set_num_threads(1)  # others may be at work on a small machine
        return None
    a = torch.randn(4096, 4096, device="cuda", dtype=torch.float16)
    for _ in range(500):
        a @ a
    torch.cuda.synchronize()
    return Driver()


def make(layer: Layer, smoke: bool) -> Inputs:
    side = _SMOKE_GRID if smoke else _GRID
    case = Case(str(layer), side, side, layer.window, layer.batch, layer.heads)
    return make_inputs(case, "fp16", layer.head_dim, with_bias=True, device="cpu" if smoke else "cuda")


def time_layer(
    work: Work, report: Reporter, driver: Driver | None, layer: Layer, correct: list[AttentionKernel]
) -> None:
    keys, inputs = (ATTENTION, str(layer)), make(layer, work.smoke)
    operations, moved = attention_peers.operations(inputs), attention_peers.moved_bytes(inputs)
    report.attempt(*keys, "floor", call=lambda: floors.at_rates(work.of("floors"), operations, moved))
    timer = Timer(work, driver, inputs)
    of_samrt = attention_peers.of_samrt(inputs, [one for one in correct if one.head_dim == layer.head_dim])

    def time_ours(chosen: Callable[[str], bool]) -> None:
        for name in filter(chosen, of_samrt):
            report.attempt(*keys, "times", name, call=partial(timer.of, name, of_samrt[name]))

    # The times that the goals need come first.
    time_ours(DEFAULT_TILE.__eq__)
    for name, maker in attention_peers.of_torch(inputs).items():
        report.attempt(*keys, "times", name, call=partial(timer.of_torch, name, maker))
    for name in (FLEX, FLEX_APART) if driver is not None else ():
        short = {"absent": f"{work.seconds_left:.0f} s were left"}
        flex = partial(attention_peers.compiled_flex, inputs, apart=name == FLEX_APART)
        call = partial(timer.of_made, name, flex) if work.seconds_left > _LEAST_TO_COMPILE_S else short.copy
        report.attempt(*keys, "times", name, call=call)
    time_ours(DEFAULT_TILE.__ne__)


class Timer:
    """Compares a contender's first image with float32, then times it."""

    def __init__(self, work: Work, driver: Driver | None, inputs: Inputs) -> None:
        self._driver, self._inputs = driver, inputs
        self._seconds = _SMOKE_SECONDS if work.smoke else _SECONDS
        self._references: dict[bool, Any] = {}

    def of(self, name: str, call: Callable[[], Any]) -> dict[str, Any]:
        """Its times. Raises ValueError if its result is wrong."""
        with torch.inference_mode():
            expected = self._expected("without bias" not in name)
            difference = float((call()[:1].float() - expected).norm() / expected.norm())
            if not difference < _MOST_DIFFERENCE:
                raise ValueError(f"differs from float32 by {difference:.3g}: not timed")
            times = measure(call, self._driver, self._seconds)
        if self._driver is not None:
            torch.cuda.empty_cache()
        return {"relative_l2_to_float32": difference, **times}

    def of_made(self, name: str, make_call: Callable[[], Callable[[], Any]]) -> dict[str, Any]:
        """The same of a call that is made for it."""
        return self.of(name, make_call())

    def of_torch(self, name: str, make_call: Callable[[], Callable[[], Any]]) -> dict[str, Any]:
        """The same of a contender of torch's, and which of its operators ran."""
        call = make_call()
        return {"backend": attention_peers.backend_of(call), **self.of(name, call)}

    def _expected(self, with_bias: bool) -> Any:
        if with_bias not in self._references:
            self._references[with_bias] = attention_peers.float32_reference(self._inputs, with_bias)
        return self._references[with_bias]
