"""What `benchmarks/gpu` times our attention against, and the goals it holds it to."""

from __future__ import annotations

from typing import Any

import attention_peers
import goals
import pytest
import torch
import torch_attention
from torch.utils.flop_counter import FlopCounterMode
from torch_attention import Case, dense, make_inputs

from samrt_export.models.image_encoder_vit import Attention


@pytest.mark.parametrize("window", [0, 14])
def test_the_truth_is_the_encoder_s_attention(window: int) -> None:
    side, heads, head_dim = 20, 2, 64
    attention = Attention(heads * head_dim, head_dim, side, window).double()
    torch.manual_seed(0)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, side, side, heads * head_dim, dtype=torch.float64)
    with torch.inference_mode():
        inputs = torch_attention.Inputs(
            attention.qkv(x).unflatten(-1, (3, heads, head_dim)),
            attention.qkv.bias.view(3, heads, head_dim),
            attention.rel_pos_h,
            attention.rel_pos_w,
            window,
        )
        torch.testing.assert_close(attention.proj(dense(inputs)), attention(x))


@pytest.mark.parametrize("window", [0, 14])
def test_counts_the_operations_and_bytes_of_a_layer(window: int) -> None:
    inputs = make_inputs(Case("counted", 20, 24, window, batch=2, heads=3), "fp16", 80, True, "cpu")
    with FlopCounterMode(display=False) as counter:
        out = dense(inputs)
    tables = 2 * 80 * (2 * (2 * 14 - 1) if window else 2 * 20 - 1 + 2 * 24 - 1)

    assert attention_peers.operations(inputs) == counter.get_total_flops()
    assert attention_peers.moved_bytes(inputs) == 2 * 4 * out.numel() + 2 * 3 * 3 * 80 + tables


def _of_torch(window: int) -> tuple[torch_attention.Inputs, dict[str, Any]]:
    """A layer in float64 and torch's calls for it that have a bias."""
    side = 20 if window else 9
    inputs = make_inputs(Case("peers", side, side, window, batch=2), "fp16", 64, True, "cpu").to(torch.float64)
    makers = attention_peers.of_torch(inputs)
    names = (goals.BIAS_READY, goals.BIAS_BUILT, attention_peers.AUGMENTED)
    return inputs, {name: makers[name]() for name in names}


@pytest.mark.parametrize("window", [0, 14])
def test_torch_s_forms_are_the_definition(window: int) -> None:
    inputs, calls = _of_torch(window)
    for name, call in calls.items():
        torch.testing.assert_close(call(), dense(inputs), msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("window", [0, 14])
def test_flex_attention_is_the_definition(window: int, apart: bool) -> None:
    inputs = make_inputs(Case("peers", 9, 9, window), "fp16", 64, True, "cpu").to(torch.float32)
    with torch.inference_mode():  # where it is timed; on the host nothing compiles the kernel
        out = attention_peers.compiled_flex(inputs, apart, backend="eager")()
        torch.testing.assert_close(out, dense(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", [0, 14])
def test_torch_is_not_timed_with_what_it_can_have_before(window: int) -> None:
    for name, call in _of_torch(window)[1].items():
        called = attention_peers.Operators()
        with called:
            call()
        assert any("attention" in operator for operator in called.names), name
        assert not called.names & {"arange", "index", "eye", "one_hot", "scatter_", "zeros", "new_zeros"}, name
        assert ("add" in called.names) == (name == goals.BIAS_BUILT), name


@pytest.mark.parametrize("window", [0, 14])
def test_torch_gets_a_ready_bias_as_its_kernel_takes_it(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = []

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: torch.Tensor) -> torch.Tensor:
        masks.append(attn_mask)
        return v

    call = _of_torch(window)[1][goals.BIAS_READY]
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    call()

    tokens = (window or 9) ** 2
    assert [mask.shape[-2:] for mask in masks] == [(tokens, tokens)]
    assert masks[0].stride(-1) == 1
    assert all(stride % 8 == 0 for stride in masks[0].stride()[:-1])


def test_says_which_of_its_operators_torch_chose() -> None:
    inputs = make_inputs(Case("peers", 4, 4), "fp16", 64, True, "cpu")
    found = {name: attention_peers.backend_of(make()) for name, make in attention_peers.of_torch(inputs).items()}

    assert found.pop(f"{goals.BIAS_READY}, MATH") == found.pop(f"{goals.BIAS_BUILT}, MATH") == "math"
    assert set(found.values()) == {"flash_attention_for_cpu"}
    assert len(found) == 4


_TIMES = {
    goals.DEFAULT_TILE: 1.0,
    f"{goals.NO_BIAS}, a": 0.97,
    f"{goals.NO_BIAS}, b": 0.9,
    goals.FLASH: 0.99,
    goals.BIAS_BUILT: 5.5,
    f"{goals.BIAS_BUILT}, CUDNN": 3.5,
    goals.BIAS_READY: 4.9,
    f"{goals.BIAS_READY}, CUDNN": 1.4,
    goals.FLEX: 1.6,
    goals.FLEX_APART: 1.7,
    goals.AUGMENTED: 2.0,
}


def test_goals_are_ratios_to_the_best_of_torch_which_they_name() -> None:
    layer = goals.of_layer(False, _TIMES, 0.4)

    assert [(goal["got"], goal["met"]) for goal in layer] == [
        (0.99, False), (1.4, False), (3.5, True), (1.6, True), (1.1111, False), (2.5, True)
    ]  # fmt: skip
    for goal, peer in zip(
        layer[1:], (f"{goals.BIAS_READY}, CUDNN", f"{goals.BIAS_BUILT}, CUDNN", goals.FLEX), strict=False
    ):
        assert goal["name"].endswith(f": {peer}")
    assert [goal["got"] for goal in goals.of_layer(True, _TIMES, 0.4)] == [1.4, 1.6]
    assert goals.of_image_kernel(0.03, 0.02) == [
        {"name": "time over the bandwidth floor", "wanted": "at most 1.5", "got": 1.5, "met": True}
    ]
    assert goals.of_image_kernel(0.003, 0.002) == []


@pytest.mark.parametrize("missing", [goals.AUGMENTED, goals.FLEX, goals.FLEX_APART])
def test_no_goal_is_met_against_a_contender_that_was_never_tried(missing: str) -> None:
    times = {name: time for name, time in _TIMES.items() if name != missing}
    for windows in (False, True):
        untried, failed = (
            [goal for goal in goals.of_layer(windows, times, 0.4, failed) if "everything timed" in goal["name"]]
            for failed in ((), (missing,))
        )
        assert [(goal["got"], goal["met"]) for goal in untried] == [(None, None)]
        assert all(goal["got"] is not None for goal in failed)


@pytest.mark.parametrize("missing", [goals.DEFAULT_TILE, "torch"])
def test_a_goal_whose_times_are_missing_has_no_figure(missing: str) -> None:
    times = {name: time for name, time in _TIMES.items() if missing not in name and goals.NO_BIAS not in name}
    for goal in (
        *goals.of_layer(False, times, None),
        *goals.of_layer(True, times, None),
        *goals.of_image_kernel(1, None),
    ):
        assert (goal["got"], goal["met"]) == (None, None), goal
