"""The attention kernels at the models' sizes against float64, within the bounds of tests/kernels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import kernel_library
import torch
from check_attention import assert_close
from driver import Driver
from isolated import Reporter
from kernel_library import AttentionKernel
from reference import Truth
from torch_attention import CASES, SMALL_CASES, Case, by_kernel, dense, make_inputs
from work import WrongResultError

from samrt.kernels.library import Kernels


def cases(smoke: bool) -> tuple[Case, ...]:
    return SMALL_CASES if smoke else CASES


def correct(outcomes: Mapping[str, Any], kernels: Collection[AttentionKernel], smoke: bool) -> list[AttentionKernel]:
    """Those that came through every case, going by what `check` reported; one that was not reached did not."""
    names = [case.name for case in cases(smoke)]
    return [
        kernel
        for kernel in kernels
        if all("error" not in outcomes.get(str(kernel), {}).get(name, {"error": "not reached"}) for name in names)
    ]


def check(kernels: Kernels, chosen: Collection[AttentionKernel], report: Reporter, keys: tuple[str, ...]) -> None:
    """Report, under `keys`, kernel and case, how far from the truth each of the `chosen` is; two runs must agree."""
    smoke = kernels.architectures == ("host",)
    device = "cpu" if smoke else "cuda"
    most_shared = None if smoke else Driver().shared_bytes
    groups: dict[tuple[str, int, bool], list[AttentionKernel]] = {}
    for kernel in chosen:
        groups.setdefault((kernel.precision, kernel.head_dim, kernel.with_bias), []).append(kernel)
    # What the models run comes first.
    for group in sorted(groups, key=lambda group: (group[0] != "fp16", not group[2], group[1])):
        for case in cases(smoke):
            left = [kernel for kernel in groups[group] if not report.is_done(*keys, str(kernel), case.name)]
            if not left:
                continue
            inputs = make_inputs(case, *group, device=device)
            expected = (dense(inputs), dense(inputs.to(torch.float64)))
            for kernel in left:
                needed = kernel_library.shared_bytes(kernels, kernel.head_dim, kernel.tile, case.sides[0])
                if most_shared is not None and needed > most_shared:
                    outcome: Any = {"absent": f"a block needs {needed} bytes of shared memory"}.copy
                else:
                    outcome = partial(_compared, kernel, inputs, *expected)
                report.attempt(*keys, str(kernel), case.name, call=outcome)


def _compared(kernel: AttentionKernel, inputs: Any, in_torch: Any, truth: Any) -> dict[str, float]:
    out, again = by_kernel(inputs, kernel.tile), by_kernel(inputs, kernel.tile)
    if not torch.equal(out, again):
        raise WrongResultError("two runs gave different results")
    arrays = [tensor.to(torch.float64).cpu().numpy() for tensor in (out, in_torch, truth)]
    # No room is asked for what large scores lose in float32.
    assert_close(arrays[0], arrays[1], Truth(arrays[2], largest=0.0), kernel.precision)
    return {
        "largest_error": float((out - truth).abs().max()),
        "of_torch": float((in_torch - truth).abs().max()),
    }
