"""Checks of `torch.ops.samrt.attention`, the kernels as a torch operator, on the host build and on a GPU.

    SAMRT_KERNELS_LIBRARY=LIBRARY python tests/kernels/check_torch_operator.py LIBRARY [NAME ...]

Runs them on the host build. `CHECKS` are the same for another of torch's devices.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from check_main import check_main

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"))

from samrt_torch_op import attention
from torch_attention import Case, Inputs, by_kernel, dense, make_inputs

_GLOBAL = Case("global", 5, 7, batch=2, heads=2)
_WINDOWS = Case("windows", 5, 7, window=4, batch=2, heads=2)


def check_results(where: str) -> None:
    """As the definition, for each number format, grid and windows, with and without bias."""
    for case in (_GLOBAL, _WINDOWS):
        for precision, with_bias in (("fp16", True), ("bf16", True), ("fp16", False)):
            inputs = make_inputs(case, precision, 64, with_bias, where)
            truth = dense(inputs.to(torch.float64))
            # The default shape is compiled with bias only.
            difference = (by_kernel(inputs, -1 if with_bias else 0) - truth).norm() / truth.norm()
            assert difference < (1e-3 if precision == "fp16" else 8e-3), (
                f"{case.name}, {precision}: off by {difference}"
            )


def check_operator(where: str) -> None:
    """torch's own checks of an operator: its schema, its form for shapes alone, its way through torch.compile."""
    for case in (_GLOBAL, _WINDOWS):
        torch.library.opcheck(attention, _arguments(make_inputs(case, "fp16", 64, True, where)))


def check_in_a_compiled_function(where: str) -> None:
    inputs = make_inputs(_WINDOWS, "fp16", 64, True, where)
    # What torch.compile makes of Python, without the compiler behind it, which is no matter of ours.
    compiled = torch.compile(lambda *arguments: 2 * attention(*arguments), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*_arguments(inputs)), 2 * by_kernel(inputs))


def check_refusals(where: str) -> None:
    """What would have the kernel read elsewhere than the tensors are."""
    inputs = make_inputs(_WINDOWS, "fp16", 64, True, where)
    turned = inputs.qkv.transpose(1, 2).contiguous().transpose(1, 2)
    other_type = inputs.to(torch.bfloat16)
    for wrong, message in (
        (replace(inputs, qkv=inputs.qkv[..., :2, :, :]), "qkv is float16 or bfloat16 [B, H, W, 3, heads, d]"),
        (replace(inputs, qkv=inputs.qkv.float()), "qkv is float16 or bfloat16"),
        (replace(inputs, qkv=turned), "qkv is not contiguous"),
        (replace(inputs, qkv_bias=inputs.qkv_bias[:2]), "qkv_bias is torch.float16 [2, 2, 64]"),
        (replace(inputs, rel_pos_h=inputs.qkv_bias[0, :, :]), "rel_pos_h is torch.float16 [2, 64]"),
        (replace(inputs, window=5), "rel_pos_h is torch.float16 [7, 64]"),
        (replace(inputs, rel_pos_w=other_type.rel_pos_w), "rel_pos_w is torch.bfloat16 [7, 64]"),
        (replace(inputs, qkv_bias=None), "so qkv_bias is required"),
        (replace(inputs, rel_pos_h=None), "is NULL; pass both or neither"),
    ):
        try:
            by_kernel(wrong)
            said = "nothing"
        except (ValueError, RuntimeError) as error:
            said = str(error)
        assert message in said, f"should say {message!r}, and says: {said}"


def _arguments(inputs: Inputs) -> tuple[object, ...]:
    return inputs.qkv, inputs.qkv_bias, inputs.rel_pos_h, inputs.rel_pos_w, inputs.window, -1


CHECKS: dict[str, Callable[[str], None]] = {
    "results": check_results,
    "operator": check_operator,
    "in a compiled function": check_in_a_compiled_function,
    "refusals": check_refusals,
}

if __name__ == "__main__":
    check_main({name: partial(lambda check, *_: check("cpu"), check) for name, check in CHECKS.items()})
