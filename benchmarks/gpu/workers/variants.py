"""The attention kernels of one library: those that are found correct at the models' sizes are timed on their layers."""

from __future__ import annotations

import attention_peers
import model_sizes
from driver import Driver
from isolated import Reporter
from kernel_library import AttentionKernel, attention_kernels
from phases.kernels_variants import CORRECT, TIMES
from work import Work
from workers.layers import Timer, layers, make, warm_driver

from samrt.kernels.library import load_kernels

_LEAST_S = 3


def serve(work: Work, report: Reporter, label: str) -> None:
    kernels = load_kernels()
    chosen = [one for one in attention_kernels(kernels) if one.precision == "fp16" and one.with_bias]
    if work.smoke:
        chosen = [one for one in chosen if one.head_dim == 64 and one.tile < 1]
    driver = warm_driver(work.smoke)
    # Heads of 64 are the most common: they are checked and timed before the others are checked.
    for head_dim in sorted({one.head_dim for one in chosen}):
        alike = [one for one in chosen if one.head_dim == head_dim]
        model_sizes.check(kernels, alike, report, (label, CORRECT))
        outcomes: dict[str, dict[str, object]] = {}
        for keys, value in report.values.items():
            if keys[:2] == (label, CORRECT):
                outcomes.setdefault(keys[2], {})[keys[3]] = value
        _time(work, report, driver, label, head_dim, model_sizes.correct(outcomes, alike, work.smoke))


def _time(
    work: Work, report: Reporter, driver: Driver | None, label: str, head_dim: int, correct: list[AttentionKernel]
) -> None:
    for layer in layers(work.smoke):
        if layer.batch != 1 or layer.model == "ViT-L" or layer.head_dim != head_dim:
            continue
        inputs = make(layer, work.smoke)
        timer = Timer(work, driver, inputs)
        for name, call in attention_peers.of_samrt(inputs, correct).items():
            if work.seconds_left > _LEAST_S:
                keys = (label, TIMES, str(layer), name)
                report.attempt(*keys, call=lambda name=name, call=call, timer=timer: timer.of(name, call))
