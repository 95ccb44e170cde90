"""The goals for the kernels, from what was measured; where a time is missing, "got" and "met" are null.

They were set for an H100; the result says which device it was.
"""

from __future__ import annotations

from typing import Any

# Contenders, as attention_peers names them.
TABLE, NO_BIAS = "samrt, the table's choice", "samrt without bias"
BIAS_BUILT, BIAS_READY = "torch SDPA, dense bias", "torch SDPA, dense bias made beforehand"
FLASH = "torch flash attention without bias"


def of_layer(windows: bool, times: dict[str, float]) -> list[dict[str, Any]]:
    """Goals of one attention layer, from the times in milliseconds of those contenders that were measured."""
    ours = times.get(TABLE)
    if windows:
        return [
            _at_least(f"speed over partition and {peer}", 2, times.get(peer), ours) for peer in (BIAS_BUILT, BIAS_READY)
        ]
    without = [time for name, time in times.items() if name.startswith(NO_BIAS)]
    return [
        _at_most("time over the fastest of samrt without bias", 1.05, ours, min(without, default=None)),
        _at_least(f"speed over {FLASH}", 1, times.get(FLASH), ours),
        *(_at_least(f"speed over {peer}", 5, times.get(peer), ours) for peer in (BIAS_BUILT, BIAS_READY)),
    ]


def of_image_kernel(time: float | None, floor: float | None) -> list[dict[str, Any]]:
    """The goal of a pre- or postprocessing kernel, from its time and its bandwidth floor in milliseconds."""
    return [_at_most("time over the bandwidth floor", 1.5, time, floor)]


def _at_most(name: str, wanted: float, above: float | None, below: float | None) -> dict[str, Any]:
    return _goal(name, f"at most {wanted}", above, below, lambda got: got <= wanted)


def _at_least(name: str, wanted: float, above: float | None, below: float | None) -> dict[str, Any]:
    return _goal(name, f"at least {wanted}", above, below, lambda got: got >= wanted)


def _goal(name: str, wanted: str, above: float | None, below: float | None, met: Any) -> dict[str, Any]:
    if above is None or below is None or below <= 0:
        return {"name": name, "wanted": wanted, "got": None, "met": None}
    got = above / below
    return {"name": name, "wanted": wanted, "got": round(got, 4), "met": bool(met(got))}
