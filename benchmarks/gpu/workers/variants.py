"""The attention kernels of one library: those that are found correct at the models' sizes are timed on their layers."""

from __future__ import annotations

import attention_peers
import model_sizes
from isolated import Reporter
from kernel_library import attention_kernels
from phases.kernels_variants import CORRECT, TIMES
from work import Work
from workers.layers import Timer, layers, make, warm_driver

from samrt.kernels import load_kernels

_LEAST_S = 3


def serve(work: Work, report: Reporter, label: str) -> None:
    kernels = load_kernels()
    chosen = [one for one in attention_kernels(kernels) if one.precision == "fp16" and one.with_bias]
    if work.smoke:
        chosen = [one for one in chosen if one.head_dim == 64 and one.tile < 1]
    driver = warm_driver(work.smoke)
    outcomes: dict[str, dict[str, object]] = {}
    model_sizes.check(kernels, chosen, report, (label, CORRECT))
    for keys, value in report.values.items():
        if keys[:2] == (label, CORRECT):
            outcomes.setdefault(keys[2], {})[keys[3]] = value
    correct = model_sizes.correct(outcomes, chosen, work.smoke)
    for layer in (one for one in layers(work.smoke) if one.batch == 1 and one.model != "ViT-L"):
        inputs = make(layer, work.smoke)
        timer = Timer(work, driver, inputs)
        fitting = [one for one in correct if one.head_dim == layer.head_dim]
        for name, call in attention_peers.of_samrt(inputs, fitting).items():
            if work.seconds_left > _LEAST_S:
                keys = (label, TIMES, str(layer), name)
                report.attempt(*keys, call=lambda name=name, call=call, timer=timer: timer.of(name, call))
