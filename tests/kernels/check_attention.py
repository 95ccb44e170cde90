"""Checks of samrt_attention, on any build of the kernel library: every compiled kernel on every case, and refusals.

    python tests/kernels/check_attention.py LIBRARY [NAME ...]

Runs the checks of these names, or all, on the host build. `CHECKS` are the same for another device.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from attention_cases import CASES, Case, make
from check_main import check_main
from formats import from_bits, to_bits
from guarded_memory import Device, GuardedMemory
from numpy.typing import NDArray
from reference import Tensors, Truth, attention
from refusals import expect_refusal
from torch import Tensor

from samrt.kernels.library import AttentionArgs, AttentionShape, AttentionTensors, Kernels

Precision = Literal["fp16", "bf16"]
Check = Callable[[Kernels, Device], None]


@dataclass(frozen=True)
class Tolerance:
    """What a result may be off from float64, for the largest error and for the root mean square.

    Attributes:
        of_torch: times the error of torch's dense form in the same precision.
        of_scale: and so much of the largest value (the root mean square), where torch has a result: one rounding.
        alone: in its place where torch's overflows: weights and result are rounded, with some room.
        of_scores: and so much of it times the largest score. It is held in float32 while products are added to it in
            several steps, each of which may cut off its last bit.
    """

    of_torch: float
    of_scale: float
    alone: float
    of_scores: float


TOLERANCES = {
    "fp16": Tolerance(of_torch=2.0, of_scale=2.0**-11, alone=2.0**-9, of_scores=2.0**-21),
    "bf16": Tolerance(of_torch=2.0, of_scale=2.0**-8, alone=2.0**-6, of_scores=2.0**-21),
}
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Instance:
    """One compiled kernel; tile -1 is the default shape."""

    precision: Precision
    head_dim: int
    tile: int
    name: str


def instances(kernels: Kernels, with_bias: bool) -> Iterator[Instance]:
    """Those that are compiled, in groups of one precision and head dimension."""
    has_tile = ctypes.CDLL(str(kernels.path))["samrt_attention_has_tile"]
    precisions: tuple[Precision, ...] = ("fp16", "bf16")
    for number, precision in enumerate(precisions):
        for head_dim in (64, 80):
            for tile, name in enumerate(kernels.attention_tiles()):
                if has_tile(number, head_dim, tile, int(with_bias)):
                    yield Instance(precision, head_dim, tile, name)
            if with_bias:
                yield Instance(precision, head_dim, -1, "default")


def in_torch(tensors: Tensors, precision: str) -> NDArray[Any]:
    """The layer's published form computed in this precision, scores and bias in memory; as `reference.attention`."""

    def tensor(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(_DTYPES[precision])

    qkv, window = tensor(tensors.qkv), tensors.window
    batch, grid_h, grid_w, _, heads, d = qkv.shape
    side_h, side_w = (window, window) if window else (grid_h, grid_w)
    down, across = -(-grid_h // side_h), -(-grid_w // side_w)
    padded = tensor(tensors.qkv_bias).expand(batch, down * side_h, across * side_w, 3, heads, d).clone()
    padded[:, :grid_h, :grid_w] = qkv
    # [batch, down, side_h, across, side_w, 3, heads, d] -> q, k, v of [windows, heads, side_h * side_w, d]
    windows = padded.reshape(batch, down, side_h, across, side_w, 3, heads, d).permute(5, 0, 1, 3, 6, 2, 4, 7)
    q, k, v = windows.reshape(3, -1, heads, side_h * side_w, d).unbind(0)
    scores = (q * d**-0.5) @ k.transpose(-2, -1)
    if tensors.rel_pos_h is not None and tensors.rel_pos_w is not None:
        grid_q = q.unflatten(2, (side_h, side_w))
        rel_h = torch.einsum("bnhwd,hkd->bnhwk", grid_q, _by_offset(tensor(tensors.rel_pos_h)))
        rel_w = torch.einsum("bnhwd,wkd->bnhwk", grid_q, _by_offset(tensor(tensors.rel_pos_w)))
        scores = scores + (rel_h[..., :, None] + rel_w[..., None, :]).flatten(4).flatten(2, 3)
    out = (scores.softmax(dim=-1) @ v).reshape(batch, down, across, heads, side_h, side_w, d)
    out = out.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, down * side_h, across * side_w, heads * d)
    return out[:, :grid_h, :grid_w].reshape(batch, grid_h * grid_w, heads * d).float().numpy()


def _by_offset(table: Tensor) -> Tensor:
    side = (len(table) + 1) // 2
    position = torch.arange(side)
    return table[position[:, None] - position + side - 1]


def run_kernel(kernels: Kernels, device: Device, case: Case, instance: Instance, tensors: Tensors) -> NDArray[Any]:
    """What the kernel makes of it: float32 [batch, tokens, heads * head_dim]. Guard zones are checked."""
    shape = AttentionShape(
        case.batch, case.grid_h, case.grid_w, case.heads, instance.head_dim, case.window, instance.precision
    )
    out_shape = (case.batch, case.grid_h * case.grid_w, case.heads * instance.head_dim)
    fits = not case.window or not (case.grid_h % case.window or case.grid_w % case.window)
    with GuardedMemory(device) as memory:

        def put(array: NDArray[Any] | None) -> int:
            return 0 if array is None else memory.put(to_bits(array, instance.precision), case.offset)

        out = memory.room(2 * int(np.prod(out_shape)))
        addresses = AttentionTensors(
            put(tensors.qkv), out, 0 if fits else put(tensors.qkv_bias), put(tensors.rel_pos_h), put(tensors.rel_pos_w)
        )
        kernels.attention(shape, addresses, tile=None if instance.tile < 0 else instance.tile)
        return from_bits(memory.read(out, out_shape, np.uint16), instance.precision)


def assert_close(result: NDArray[Any], yardstick: NDArray[Any], truth: Truth, precision: str) -> None:
    """Raises AssertionError where `result` is further from the truth than `TOLERANCES` allow.

    What is not finite in the truth must be the same in the result.
    """
    finite = np.isfinite(truth.out)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(truth.out), "NaN is not where it should be")
    np.testing.assert_array_equal(result[~finite], truth.out[~finite], "infinities are not where they should be")
    tolerance, exact = TOLERANCES[precision], truth.out[finite]
    ours, theirs = result[finite] - exact, yardstick[finite] - exact
    overflown = not np.isfinite(theirs).all()
    for kind, size in (("largest", _largest), ("root mean square", _root_mean_square)):
        scale = tolerance.alone if overflown else tolerance.of_scale
        bound = (scale + tolerance.of_scores * truth.largest) * size(exact)
        bound += 0.0 if overflown else tolerance.of_torch * size(theirs)
        assert size(ours) <= bound, (
            f"{kind} error {size(ours):.3g}, at most {bound:.3g}; torch's is {size(theirs):.3g}; "
            f"{np.count_nonzero(np.abs(ours) > bound)} of {ours.size} values are further off"
        )


def _largest(values: NDArray[Any]) -> float:
    return float(np.abs(values).max(initial=0.0))


def _root_mean_square(values: NDArray[Any]) -> float:
    # Scaled, as the square of the largest bf16 is beyond float64's comfort in float32 terms.
    scale = _largest(values) or 1.0
    return scale * float(np.sqrt(np.mean(np.square(values / scale)))) if values.size else 0.0


def check_case(case: Case, kernels: Kernels, device: Device) -> None:
    """One case on every kernel that takes it."""
    expected: dict[tuple[str, int], tuple[Tensors, NDArray[Any], Truth]] = {}
    for instance in instances(kernels, case.with_bias):
        if instance.tile < 0:  # one of the others; the self test looks at the choice
            continue
        key = (instance.precision, instance.head_dim)
        if key not in expected:
            tensors = make(case, *key)
            with np.errstate(invalid="ignore"):
                expected[key] = (tensors, in_torch(tensors, instance.precision), attention(tensors))
        tensors, yardstick, truth = expected[key]
        # Before it runs: a kernel that is stopped says nothing more.
        print(f"{instance.precision}, head_dim {instance.head_dim}, tile {instance.name}", flush=True)
        assert_close(run_kernel(kernels, device, case, instance, tensors), yardstick, truth, instance.precision)
    assert expected, "no kernel was compiled for this case"


def check_refusals(kernels: Kernels, device: Device) -> None:
    """Each wrong argument by its own message, before anything runs: the addresses are none."""
    good: dict[str, Any] = {
        "qkv": 4096, "qkv_bias": 4096, "rel_pos_h": 4096, "rel_pos_w": 4096, "out": 4096,
        "batch": 1, "grid_h": 4, "grid_w": 6, "heads": 2, "head_dim": 64, "window": 0, "format": 0, "tile": -1,
    }  # fmt: skip
    unaligned = "is not aligned to 16 bytes"
    at_least = "all others at least 1"
    tiles = len(kernels.attention_tiles())
    refused: list[tuple[dict[str, Any], str]] = [
        ({"qkv": None}, "qkv or out is NULL"),
        ({"out": None}, "qkv or out is NULL"),
        ({"rel_pos_h": None}, "is NULL; pass both or neither"),
        ({"rel_pos_w": None}, "is NULL; pass both or neither"),
        ({"window": 4, "qkv_bias": None}, "windows of 4 do not divide a grid of 4 x 6 evenly, so qkv_bias is required"),
        *(({name: 4096 + 8}, unaligned) for name in ("qkv", "qkv_bias", "rel_pos_h", "rel_pos_w", "out")),
        ({"head_dim": 72}, "head_dim must be 64 or 80, not 72"),
        ({"format": 2}, "unknown number format 2"),
        ({"batch": -1}, at_least),
        ({"grid_h": 0}, at_least),
        ({"grid_w": 0}, at_least),
        ({"heads": 0}, at_least),
        ({"window": -1}, at_least),
        ({"window": 4097}, "window must be at most 4096 tokens"),
        ({"tile": -2}, "tile is -2; it must be"),
        ({"tile": tiles}, f"tile is {tiles}; it must be"),
        ({"grid_h": 4096, "grid_w": 4096}, "a grid of 4096 x 4096 with 2 heads of 64 has 2^31 elements or more"),
        ({"grid_h": 2**30, "grid_w": 2**30}, "has 2^31 elements or more"),
        ({"grid_h": 1, "grid_w": 1, "heads": 2**31 - 1}, "has 2^31 elements or more"),
        ({"batch": 65536}, "at most 65535"),
        ({"batch": 3000, "grid_h": 8, "grid_w": 6, "window": 1}, "at most 65535"),
        ({"grid_h": 20000, "grid_w": 1}, "bytes of shared memory, and compute capability "),
    ]
    for wrong, message in refused:
        expect_refusal(kernels, "samrt_attention", AttentionArgs(**{**good, **wrong}), message)
    expect_refusal(kernels, "samrt_attention", None, "args is NULL")


def check_missing_kernels(kernels: Kernels, device: Device) -> None:
    """What was not compiled is refused: no bias in bf16."""
    args = AttentionArgs(4096, 4096, None, None, 4096, 1, 4, 4, 1, 64, 0, 1, 0)
    expect_refusal(kernels, "samrt_attention", args, "no kernel was compiled for")


def check_nothing_to_do(kernels: Kernels, device: Device) -> None:
    """An empty batch is no error and touches nothing."""
    args = AttentionArgs(batch=0, grid_h=4, grid_w=4, heads=1, head_dim=64, tile=-1)
    kernels.call("samrt_attention", ctypes.byref(args), None)


def check_table(kernels: Kernels, device: Device) -> None:
    """The default shape of each GPU that the kernels are compiled for is compiled, and correct."""
    library = ctypes.CDLL(str(kernels.path))
    for capability, shared_kib in _GPUS:
        library["samrt_host_set_device"](capability, 1024 * shared_kib)
        for case, head_dim in itertools.product(_TABLE_CASES, (64, 80)):
            print(f"{case}, head_dim {head_dim} on {capability}", flush=True)
            tensors = make(case, "fp16", head_dim)
            result = run_kernel(kernels, device, case, Instance("fp16", head_dim, -1, "default"), tensors)
            assert_close(result, in_torch(tensors, "fp16"), attention(tensors), "fp16")


def check_shared_before(kernels: Kernels, device: Device) -> None:
    """Results do not depend on what other blocks left in shared memory, to the last bit.

    Queries past the window's last row, of which this case has two in each row tile, are not stored. But they take part
    in the vote on rescaling, which decides how the results of others are rounded.
    """
    library, case = ctypes.CDLL(str(kernels.path)), CASES["14x14"]
    for instance in instances(kernels, with_bias=True):
        if instance.tile < 0:
            continue
        print(f"{instance.precision}, head_dim {instance.head_dim}, tile {instance.name}", flush=True)
        tensors, results = make(case, instance.precision, instance.head_dim), []
        # 60,000 and more in every format, and NaN, as everywhere else.
        for byte in (0x7B, 0xFF):
            library["samrt_host_set_shared_before"](byte)
            results.append(run_kernel(kernels, device, case, instance, tensors))
        np.testing.assert_array_equal(*results)


def check_self_test(kernels: Kernels, device: Device) -> None:
    """The library's own."""
    kernels.self_test()


# Compute capability, and KiB of shared memory that a block may have there.
_GPUS = ((80, 163), (86, 99), (87, 163), (89, 99), (90, 227), (100, 227), (110, 227), (120, 99))
# Wide, up to 32 wide, up to 16 wide, and so high that a large tile's row terms do not fit.
_TABLE_CASES = (Case(2, 33), Case(2, 20), Case(3, 4), Case(250, 1))

CHECKS: dict[str, Check] = {
    **{name: partial(check_case, case) for name, case in CASES.items()},
    "refusals": check_refusals,
    "kernels that were not compiled": check_missing_kernels,
    "nothing to do": check_nothing_to_do,
}

# For the host build, which is whichever GPU it is told to be.
HOST_CHECKS: dict[str, Check] = {
    "default tile shapes": check_table,
    "other contents of shared memory": check_shared_before,
    "self test": check_self_test,
}

if __name__ == "__main__":
    check_main({**CHECKS, **HOST_CHECKS})
