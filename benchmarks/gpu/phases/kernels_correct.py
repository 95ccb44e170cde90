"""Every kernel against the truth, before any of them is timed.

At small sizes by the checks that CI runs on the kernels' source on the host; at the models' sizes against float64,
computed on the device.
"""

from __future__ import annotations

from typing import Any

import kernel_checks
import kernel_library
from driver import Driver
from kernel_library import AttentionKernel
from work import NotHereError, Work, WrongResultError

from samrt.kernels import Kernels

_CHECKS, _ATTENTION = "tests/kernels", "attention"
_SMOKE_CHECKS = {  # each takes a second; CI runs all of them elsewhere
    "check_attention": ("nothing to do", "2x64"),
    "check_image": ("one pixel",),
    "check_masks": ("one pixel",),
}
_TOLD = 1000


def run(work: Work) -> None:
    kernels = kernel_library.use(work)
    wrong = _checks(work, kernels)
    try:
        wrong += _model_sizes(work, kernels)
    except ImportError as error:
        work.record(_ATTENTION, value={"absent": str(error)})
    work.record("wrong", value=wrong)
    if wrong:
        raise WrongResultError(f"{len(wrong)} wrong: {'; '.join(wrong)}"[:_TOLD])


def passed(work: Work, module: str) -> bool:
    """Whether this phase ran all of that module of tests/kernels and found nothing wrong."""
    return bool(work.of("kernels_correct").get(_CHECKS, {}).get(module, {}).get("all_passed"))


def found_correct(work: Work, kernels: list[AttentionKernel]) -> list[AttentionKernel]:
    """Those of the attention kernels that this phase found correct at the models' sizes.

    Raises:
        NotHereError: it did not come to its end.
    """
    found = work.of("kernels_correct")
    if "wrong" not in found:
        raise NotHereError("the phase kernels_correct did not run to its end")
    outcomes = found.get(_ATTENTION, {})
    return [
        kernel
        for kernel in kernels
        if str(kernel) in outcomes and not any("error" in outcome for outcome in outcomes[str(kernel)].values())
    ]


def _checks(work: Work, kernels: Kernels) -> list[str]:
    """Run the checks of tests/kernels and the library's own; those that failed."""
    wrong = []
    if not work.smoke and work.attempt("self_test", call=lambda: _self_test(kernels)) is None:
        wrong.append("self_test")
    where = kernel_checks.device(None if work.smoke else Driver())
    for module in kernel_checks.MODULES:
        try:
            names = _SMOKE_CHECKS[module] if work.smoke else kernel_checks.names(module)
        except ImportError as error:
            work.record(_CHECKS, module, value={"absent": str(error)})
            continue
        failed = {}
        for name in names:
            try:
                kernel_checks.run(module, name, kernels, where)
            except Exception as error:
                failed[name] = str(error)[:_TOLD]
        work.record(_CHECKS, module, value={"checks": len(names), "all_passed": not failed, "failed": failed})
        wrong += [f"{module}, {name}" for name in failed]
    return wrong


def _self_test(kernels: Kernels) -> str:
    kernels.self_test()
    return "passed"


def _model_sizes(work: Work, kernels: Kernels) -> list[str]:
    """Every attention kernel at the models' sizes; what is wrong."""
    import torch
    from torch_attention import CASES, SMALL_CASES, dense, make_inputs

    if work.smoke:
        torch.set_num_threads(1)  # others may be at work on a small machine
    groups: dict[tuple[str, int, bool], list[AttentionKernel]] = {}
    for kernel in kernel_library.attention_kernels(kernels):
        groups.setdefault((kernel.precision, kernel.head_dim, kernel.with_bias), []).append(kernel)
    most_shared = None if work.smoke else Driver().shared_bytes
    wrong = []
    for group, alike in groups.items():
        for case in SMALL_CASES if work.smoke else CASES:
            inputs = make_inputs(case, *group, device="cpu" if work.smoke else "cuda")
            expected = (dense(inputs), dense(inputs.to(torch.float64)))
            for kernel in alike:
                needed = kernel_library.shared_bytes(kernels, kernel.head_dim, kernel.tile, case.sides[0])
                if most_shared is not None and needed > most_shared:
                    outcome: dict[str, Any] = {"absent": f"a block needs {needed} bytes of shared memory"}
                else:
                    outcome = _outcome(kernel, inputs, *expected)
                work.record(_ATTENTION, str(kernel), case.name, value=outcome)
                if "error" in outcome:
                    wrong.append(f"{kernel}, {case.name}")
    return wrong


def _outcome(kernel: AttentionKernel, inputs: Any, in_torch: Any, truth: Any) -> dict[str, Any]:
    """How far from the truth it is, beside torch's form in the same precision; or what is wrong with it."""
    import torch
    from check_attention import compare
    from reference import Truth
    from torch_attention import by_kernel

    try:
        out, again = by_kernel(inputs, kernel.tile), by_kernel(inputs, kernel.tile)
        if not torch.equal(out, again):
            raise WrongResultError("two runs gave different results")
        arrays = [tensor.to(torch.float64).cpu().numpy() for tensor in (out, in_torch, truth)]
        # No room is asked for what large scores lose in float32.
        compare(arrays[0], arrays[1], Truth(arrays[2], largest=0.0), kernel.precision)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:_TOLD]}
    return {
        "largest_error": float((out - truth).abs().max()),
        "of_torch": float((in_torch - truth).abs().max()),
    }
