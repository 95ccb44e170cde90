"""The goals for the kernels, from measured times. If a time is missing, "got" and "met" are null.

They were set for an H100, before anything was measured there; the result says which device it was. On paper, for a
global layer of ViT-B: the floor is 65 us (51.5 GFLOP at 798 TFLOP/s), published kernels without a bias take 108 (FA3)
to 160 us (FA2), and a bias made beforehand is 403 MB, which no contender of torch reads in less than 134 us.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

# Contenders, as attention_peers names them; contenders with a fixed backend of torch have its name after a comma.
DEFAULT_TILE, NO_BIAS = "samrt, default tile shape", "samrt without bias"
BIAS_BUILT, BIAS_READY = "torch SDPA, dense bias", "torch SDPA, dense bias made beforehand"
AUGMENTED, FLEX = "torch SDPA on augmented q and k", "torch flex_attention"
FLEX_APART = f"{FLEX}, terms apart"  # q . table by operations before it
FLASH = "torch flash attention without bias"

# Below this floor a kernel's launches take longer than its bytes, and the ratio of the two says nothing.
_LEAST_FLOOR_MS = 0.01


def of_layer(
    windows: bool, times: dict[str, float], floor: float | None, failed: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Goals of one attention layer, from the times in milliseconds of those contenders that were measured.

    `failed`: contenders that were tried and failed. A contender that was not tried may have been the fastest.
    """
    ours = times.get(DEFAULT_TILE)
    ready, built = _best(times, BIAS_READY), _best(times, BIAS_BUILT)
    whole = min((built, _best(times, AUGMENTED), _best(times, FLEX)), key=lambda best: best[1] or float("inf"))
    if not all(name in times or name in failed for name in (AUGMENTED, FLEX, FLEX_APART)):
        whole = (f"{AUGMENTED} or {FLEX} was not timed", None)
    if windows:
        return [
            _at_least(
                f"speed over torch's best with a bias made beforehand: partition and {ready[0]}", 2, ready[1], ours
            ),
            _at_least(f"speed over torch's best with everything timed: partition and {whole[0]}", 2, whole[1], ours),
        ]
    without = _best({name: time for name, time in times.items() if name.startswith(NO_BIAS)})
    return [
        _at_least(f"speed over {FLASH}", 1, times.get(FLASH), ours),
        _at_least(f"speed over torch's best with a bias made beforehand: {ready[0]}", 1.5, ready[1], ours),
        _at_least(f"speed over torch's best that makes the dense bias: {built[0]}", 3, built[1], ours),
        _at_least(f"speed over torch's best with everything timed: {whole[0]}", 1.5, whole[1], ours),
        _at_most(f"time over the fastest of {NO_BIAS}", 1.05, ours, without[1]),
        # FA2 without a bias is 2.5 times the floor by its published time.
        _at_most("time over the floor", 2.5, ours, floor),
    ]


def of_image_kernel(time: float | None, floor: float | None) -> list[dict[str, Any]]:
    """The goal of a pre- or postprocessing kernel, from its time and its bandwidth floor; none at a small floor."""
    if floor is not None and floor < _LEAST_FLOOR_MS:
        return []
    return [_at_most("time over the bandwidth floor", 1.5, time, floor)]


def _best(times: dict[str, float], name: str = "") -> tuple[str, float | None]:
    """The fastest of the contender `name` in all its variants; of all, without a name."""
    alike = [other for other in times if not name or other == name or other.startswith(f"{name}, ")]
    fastest = min(alike, key=lambda other: times[other], default=None)
    return (name, None) if fastest is None else (fastest, times[fastest])


def _at_most(name: str, wanted: float, above: float | None, below: float | None) -> dict[str, Any]:
    return _goal(name, f"at most {wanted}", above, below, lambda got: got <= wanted)


def _at_least(name: str, wanted: float, above: float | None, below: float | None) -> dict[str, Any]:
    return _goal(name, f"at least {wanted}", above, below, lambda got: got >= wanted)


def _goal(name: str, wanted: str, above: float | None, below: float | None, met: Any) -> dict[str, Any]:
    if above is None or below is None or below <= 0:
        return {"name": name, "wanted": wanted, "got": None, "met": None}
    got = above / below
    return {"name": name, "wanted": wanted, "got": round(got, 4), "met": bool(met(got))}
