"""Checks of samrt_masks against samrt.geometry and numpy, on any build of the kernel library.

    python tests/kernels/check_masks.py LIBRARY [NAME ...]

Runs the checks of these names, or all, on the host build, and says how many pixels differ from the CPU path's, and how
far from the threshold their logits are. `CHECKS` are the same for another device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from check_main import check_main
from guarded_memory import Device, GuardedMemory
from numpy.typing import NDArray
from refusals import expect_refusal

from samrt.bundle.contract import Geometry, Normalization, resize_shape
from samrt.geometry import threshold_masks, upscale_masks
from samrt.kernels.image import (
    MASK_STATS,
    MaskGeometry,
    MaskOutputs,
    MasksArgs,
    masks_floor_bytes,
    masks_workspace_bytes,
    write_masks,
)
from samrt.kernels.library import Kernels

Check = Callable[[Kernels, Device], None]


@dataclass(frozen=True)
class Results:
    """What the kernels wrote: uint8 [N, H, W], MASK_STATS [N], uint32 [N, capacity]."""

    masks: NDArray[np.uint8]
    stats: NDArray[Any]
    runs: NDArray[np.uint32]


def geometry(
    height: int, width: int, image_size: int = 64, low_res_size: int = 16, *, masks: int = 2, **what: Any
) -> MaskGeometry:
    input_size = resize_shape(height, width, image_size)
    return MaskGeometry(masks, low_res_size, image_size, input_size, (height, width), **what)


def smooth_logits(sizes: MaskGeometry, seed: int = 0) -> NDArray[Any]:
    """Blobs between -15 and 15, far and near the threshold, and some noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : 1j * sizes.low_res_size, 0 : 1 : 1j * sizes.low_res_size]
    planes = []
    for _ in range(sizes.masks):
        a, b, c = random.uniform(2, 9, 3)
        planes.append(15 * np.sin(a * x + b) * np.cos(c * y + a) + random.normal(0, 0.5, x.shape))
    return np.stack(planes).astype(np.float16 if sizes.precision == "fp16" else np.float32)


def noise_logits(sizes: MaskGeometry, seed: int = 0) -> NDArray[Any]:
    """Every logit for itself, from -20 to 20."""
    shape = (sizes.masks, sizes.low_res_size, sizes.low_res_size)
    logits = np.random.default_rng(seed).uniform(-20, 20, shape)
    return logits.astype(np.float16 if sizes.precision == "fp16" else np.float32)


def run_masks(
    kernels: Kernels, memory: GuardedMemory, sizes: MaskGeometry, logits: NDArray[Any], capacity: int, offset: int = 0
) -> Results:
    height, width = sizes.original_size
    shape = (sizes.masks, height, width)
    room = memory.room(sizes.masks * height * width + offset)
    stats = memory.room(sizes.masks * MASK_STATS.itemsize)
    runs = memory.room(4 * sizes.masks * capacity)
    workspace = memory.scratch(masks_workspace_bytes(kernels, sizes))
    outputs = MaskOutputs(room + offset, stats, runs, capacity)
    write_masks(kernels, sizes, memory.put(logits), outputs, workspace)
    masks = memory.read(room, (sizes.masks * height * width + offset,), np.uint8)[offset:].reshape(shape)
    return Results(
        masks,
        memory.read(stats, (sizes.masks,), MASK_STATS),
        memory.read(runs, (sizes.masks, capacity), np.uint32),
    )


def frame(sizes: MaskGeometry) -> Geometry:
    return Geometry(sizes.image_size, sizes.image_size, sizes.low_res_size, Normalization("min_max"))


def cpu_logits(sizes: MaskGeometry, logits: NDArray[Any]) -> NDArray[np.float32]:
    return upscale_masks(logits.astype(np.float32), frame(sizes), sizes.input_size, sizes.original_size)


def rounding(sizes: MaskGeometry, logits: NDArray[Any]) -> float:
    """How much the CPU path's logits may be off.

    OpenCV rounds positions to float32; the kernel's are exact. Among the L logits of a row that is up to L * 2^-25, and
    as much again in the second step (S positions, between which logits differ by L / S as much); in both axes, times at
    most the difference of two logits, 2 * largest. Besides, sums in float32.
    """
    largest = np.abs(logits[np.isfinite(logits)]).max()
    return float(largest * (sizes.low_res_size * 2.0**-22 + 2.0**-20))


def run_lengths(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """COCO's, of uint8 [H, W] of 0 and 1: down the columns, a run of zeros first, which may be empty."""
    changes = np.flatnonzero(np.diff(mask.T.ravel(), prepend=np.uint8(0)))
    return np.diff(changes, prepend=0, append=mask.size)


def check_figures(result: Results) -> None:
    """Area, box and runs against numpy, from the masks that were written."""
    for mask, stats, runs in zip(result.masks, result.stats, result.runs, strict=True):
        assert set(np.unique(mask)) <= {0, 1}
        assert stats["area"] == mask.sum()
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = [columns[0], rows[0], columns[-1], rows[-1]] if mask.any() else [0, 0, 0, 0]
        assert stats["box"].tolist() == box, f"box {stats['box']} for {box}"
        assert runs[: stats["runs"]].tolist() == run_lengths(mask).tolist(), "run lengths"


@dataclass(frozen=True)
class Case:
    """Masks from logits of one kind, written `offset` bytes past an aligned address."""

    sizes: MaskGeometry
    logits: Callable[[MaskGeometry], NDArray[Any]]
    offset: int = 0


def check_against_cpu(case: Case, kernels: Kernels, device: Device) -> None:
    """All outputs."""
    sizes, offset = case.sizes, case.offset
    logits = case.logits(sizes)
    height, width = sizes.original_size
    with GuardedMemory(device) as memory:
        result = run_masks(kernels, memory, sizes, logits, height * width + 1, offset)
    full = cpu_logits(sizes, logits)
    tolerance = rounding(sizes, logits)
    cpu = threshold_masks(
        logits.astype(np.float32), frame(sizes), sizes.input_size, sizes.original_size, sizes.threshold
    )
    differs = cpu != result.masks
    away = np.abs(full - np.float32(sizes.threshold))[differs]
    assert away.max(initial=0) <= tolerance, f"a pixel differs whose logit is {away.max()} from the threshold"
    check_figures(result)
    # Each count lies between those of thresholds a tolerance apart.
    for name, sign in (("above_high", 1), ("above_low", -1)):
        threshold = sizes.threshold + sign * sizes.stability_offset
        most, least = ((full > threshold + by).sum(axis=(1, 2)) for by in (-tolerance, tolerance))
        counts = result.stats[name]
        assert np.all((least <= counts) & (counts <= most)), f"{name} is {counts}, not in {least} to {most}"
    assert np.count_nonzero(differs) <= max(1, cpu.size // 10_000)
    print(f"{np.count_nonzero(differs)} of {cpu.size} pixels differ, by at most {away.max(initial=0):.1e}")


def check_uniform(kernels: Kernels, device: Device) -> None:
    """Nothing, everything, exactly on the threshold (no mask), and a hair above it; at weights without rounding."""
    sizes = geometry(64, 32, masks=4, threshold=2.0, stability_offset=0.5)
    logits = np.empty((4, 16, 16), np.float32)
    logits[0], logits[1], logits[2], logits[3] = -9, 9, 2.0, 2.001
    with GuardedMemory(device) as memory:
        result = run_masks(kernels, memory, sizes, logits, 3)
    check_figures(result)
    everything = 64 * 32
    assert result.stats["area"].tolist() == [0, everything, 0, everything]
    assert result.stats["above_high"].tolist() == [0, everything, 0, 0]
    assert result.stats["above_low"].tolist() == [0, everything, everything, everything]
    assert result.runs[0, 0] == everything
    assert result.runs[1, :2].tolist() == [0, everything]


def check_not_finite(kernels: Kernels, device: Device) -> None:
    """Where a NaN has weight there is no mask, elsewhere it has no effect; infinities are very large numbers."""
    sizes = geometry(100, 130, 64, 16, masks=3)
    logits = noise_logits(sizes, seed=5)
    logits[0] = 9
    logits[0, 5, 7] = logits[2, 10, 15] = logits[2, 0, 0] = np.nan
    logits[1, 3, 3], logits[1, 9, 9] = np.inf, -np.inf
    with GuardedMemory(device) as memory:
        result = run_masks(kernels, memory, sizes, logits, 100 * 130 + 1)
    weight = cpu_logits(sizes, np.isnan(logits).astype(np.float32))
    finite = np.nan_to_num(logits, nan=0.0, posinf=1e30, neginf=-1e30)
    full = cpu_logits(sizes, finite)
    # Weights of the CPU path this small may be rounding's, as the side of the threshold may be for small logits.
    touched, free = weight > 1e-4, (weight == 0) & (np.abs(full) > rounding(sizes, logits))
    assert touched[0].sum() > 50
    assert not result.masks[touched].any()
    assert np.array_equal(result.masks[free], full[free] > 0)
    check_figures(result)


def check_overflow(kernels: Kernels, device: Device) -> None:
    """Runs past the capacity are counted and not written; nor is anything else changed by them."""
    sizes = geometry(90, 70, 64, 64, masks=3)
    logits = noise_logits(sizes, seed=3)
    with GuardedMemory(device) as memory:
        whole = run_masks(kernels, memory, sizes, logits, 90 * 70 + 1)
        for capacity in (1, 100, int(whole.stats["runs"].min()), int(whole.stats["runs"].max())):
            part = run_masks(kernels, memory, sizes, logits, capacity)
            assert np.array_equal(part.stats, whole.stats)
            for mask, count in enumerate(np.minimum(whole.stats["runs"], capacity)):
                assert np.array_equal(part.runs[mask, :count], whole.runs[mask, :count])
                assert np.all(part.runs[mask, count:] == 0xEEEEEEEE), "written past a mask's runs"


def check_parts(kernels: Kernels, device: Device) -> None:
    """Masks alone, figures alone, no masks at all: as together."""
    sizes = geometry(61, 85)
    logits = smooth_logits(sizes)
    with GuardedMemory(device) as memory:
        together = run_masks(kernels, memory, sizes, logits, 61 * 85 + 1)
        source, workspace = memory.put(logits), memory.scratch(masks_workspace_bytes(kernels, sizes))
        masks, stats = memory.room(2 * 61 * 85), memory.room(2 * MASK_STATS.itemsize)
        write_masks(kernels, sizes, source, MaskOutputs(masks=masks), workspace)
        assert np.array_equal(memory.read(masks, (2, 61, 85), np.uint8), together.masks)
        write_masks(kernels, sizes, source, MaskOutputs(stats=stats), workspace)
        assert np.array_equal(memory.read(stats, (2,), MASK_STATS), together.stats)
        nothing = replace(sizes, masks=0)
        assert masks_workspace_bytes(kernels, nothing) == 0
        write_masks(kernels, nothing, 0, MaskOutputs(), 0)


def check_floor(kernels: Kernels, _: Device) -> None:
    """Bytes of the logits, and of what is wanted but the runs."""
    sizes = geometry(90, 150, masks=3, precision="fp16")
    logits, pixels, stats = 3 * 16 * 16 * 2, 3 * 90 * 150, 3 * MASK_STATS.itemsize
    assert masks_floor_bytes(kernels, sizes, MaskOutputs(masks=16)) == logits + pixels
    assert masks_floor_bytes(kernels, sizes, MaskOutputs(stats=16, runs=16, run_capacity=9)) == logits + stats
    everything = MaskOutputs(16, 16, 16, 9)
    assert masks_floor_bytes(kernels, replace(sizes, precision="fp32"), everything) == 2 * logits + pixels + stats


def check_refusals(kernels: Kernels, _: Device) -> None:
    """Each wrong argument by its own message, before anything runs: the addresses are none."""
    good: dict[str, Any] = {
        "logits": 4096, "out": 4096, "stats": 4096, "workspace": 4096, "masks": 1, "low_res_size": 16,
        "image_size": 64, "input_height": 64, "input_width": 32, "height": 90, "width": 45, "format": 2,
        "threshold": 0.0, "stability_offset": 1.0,
    }  # fmt: skip
    refused: list[tuple[dict[str, Any], str]] = [
        ({"logits": None}, "logits is NULL"),
        ({"out": None, "stats": None}, "out and stats are both NULL"),
        ({"runs": 4096, "run_capacity": 9, "stats": None}, "runs need stats"),
        ({"runs": 4096, "run_capacity": 0}, "run_capacity is 0"),
        ({"runs": 4097, "run_capacity": 1}, "not aligned to its elements"),
        ({"logits": 4098}, "not aligned to its elements"),
        ({"workspace": None}, "workspace"),
        ({"workspace": 4104}, "aligned to 16 bytes"),
        ({"masks": -1}, "-1 masks"),
        ({"masks": 65536}, "one call takes 0 to 65535"),
        ({"height": 0}, "the original is 0 x 45"),
        ({"width": 65537}, "sides must be 1 to 65536"),
        ({"height": 65536, "width": 32768}, "pixels fewer than 2^31"),
        ({"low_res_size": 65}, "image_size is 64 and low_res_size is 65"),
        ({"low_res_size": 0}, "low_res_size is 0"),
        ({"image_size": 16385}, "1 to 16384"),
        ({"input_width": 65}, "its sides must be 1 to image_size, 64"),
        ({"format": 1}, "unknown number format 1"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"stability_offset": -1.0}, "stability_offset is -1"),
    ]
    for wrong, message in refused:
        expect_refusal(kernels, "samrt_masks", MasksArgs(**{**good, **wrong}), message)
    expect_refusal(kernels, "samrt_masks", None, "args is NULL")


CASES = {
    "landscape": Case(geometry(90, 150), smooth_logits),
    "square": Case(geometry(130, 130), noise_logits),
    "portrait, tiles cut at the edges": Case(geometry(300, 141), smooth_logits),
    "smaller than the input": Case(geometry(40, 31), smooth_logits),
    "smaller than low-res": Case(geometry(9, 7, 64, 32), noise_logits),
    "noise": Case(geometry(130, 140, 64, 64), noise_logits),
    "words aligned": Case(geometry(70, 160), noise_logits),
    "words not aligned by address": Case(geometry(70, 160), noise_logits, offset=1),
    "one row": Case(geometry(1, 200), noise_logits),
    "one column": Case(geometry(129, 1), noise_logits),
    "one pixel": Case(geometry(1, 1), noise_logits),
    "many columns": Case(geometry(33, 1100, 64, 16, masks=1), noise_logits),
    "sizes as SAM's": Case(geometry(213, 320, 1024, 256, masks=1), smooth_logits),
    "sizes that divide nothing": Case(geometry(131, 97, 90, 23), smooth_logits),
    "fp16": Case(geometry(90, 150, precision="fp16"), smooth_logits),
    "other thresholds": Case(geometry(90, 150, threshold=-3.25, stability_offset=2.5), smooth_logits),
    "no offset": Case(geometry(90, 150, stability_offset=0.0), smooth_logits),
}

CHECKS: dict[str, Check] = {
    **{name: partial(check_against_cpu, case) for name, case in CASES.items()},
    "uniform": check_uniform,
    "not finite": check_not_finite,
    "more runs than there is room for": check_overflow,
    "parts": check_parts,
    "floor": check_floor,
    "refusals": check_refusals,
}

if __name__ == "__main__":
    check_main(CHECKS)
