"""One part of the checks of the kernels: the library's own test, a module of tests/kernels, or the models' sizes."""

from __future__ import annotations

from typing import Any

import kernel_checks
from driver import Driver
from isolated import Reporter
from work import Work

from samrt.kernels.library import Kernels, load_kernels

SELF_TEST, CHECKS, ATTENTION = "self_test", "tests/kernels", "attention"
PASSED, ABSENT = "passed", "absent"
PARTS = (SELF_TEST, *kernel_checks.MODULES, ATTENTION)
_SMOKE_CHECKS = {  # each takes a second; CI runs all of them elsewhere
    "check_attention": ("nothing to do", "2x64"),
    "check_image": ("one pixel",),
    "check_masks": ("one pixel",),
}


def serve(work: Work, report: Reporter, part: str) -> None:
    kernels = load_kernels()
    if part == SELF_TEST:
        report.attempt(SELF_TEST, call=lambda: _self_test(kernels))
    elif part == ATTENTION:
        _model_sizes(kernels, report)
    else:
        _module(work, report, part, kernels)


def _self_test(kernels: Kernels) -> str:
    kernels.self_test()
    return PASSED


def _passed(module: str, name: str, kernels: Kernels, where: Any) -> str:
    kernel_checks.run(module, name, kernels, where)
    return PASSED


def _module(work: Work, report: Reporter, module: str, kernels: Kernels) -> None:
    try:
        names: Any = _SMOKE_CHECKS[module] if work.smoke else kernel_checks.names(module)
    except ImportError as error:
        if not kernel_checks.is_not_installed(error):
            raise
        report.attempt(CHECKS, module, ABSENT, call=lambda text=str(error): text)
        return
    report.attempt(CHECKS, module, "of", call=lambda: len(names))
    where = kernel_checks.device(None if work.smoke else Driver())
    for name in names:
        report.attempt(CHECKS, module, "checks", name, call=lambda name=name: _passed(module, name, kernels, where))


def _model_sizes(kernels: Kernels, report: Reporter) -> None:
    try:
        import torch
        from kernel_library import attention_kernels
        from model_sizes import check
    except ImportError as error:
        if not kernel_checks.is_not_installed(error):
            raise
        report.attempt(f"{ATTENTION} {ABSENT}", call=lambda text=str(error): text)
        return
    torch.set_num_threads(min(4, torch.get_num_threads()))  # other parts are at work beside it
    check(kernels, attention_kernels(kernels), report, (ATTENTION,))
