"""The phases of each plan, in their order. A new one is a module here with `run(work: Work)`, and a line in a plan.

Phases that others need come first, then the most important ones: the limits add up to more than the budget, so the last
phases may not run. A phase that must run even if earlier phases take their full time reserves its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """`phases/<name>.py`, its time limit in seconds, and the seconds that phases before it must leave."""

    name: str
    limit_s: float
    reserve_s: float = 0


@dataclass(frozen=True)
class Plan:
    """Phases, and the seconds for all of them and what is around them."""

    budget_s: float
    phases: tuple[Phase, ...]


def allowed(phase: Phase, later: Sequence[Phase], left: float) -> float:
    """Seconds that a phase may take of the `left` ones of the budget."""
    return min(phase.limit_s, left - sum(other.reserve_s for other in later))


_DEVICE, _FLOORS, _BUILD = Phase("device", 30), Phase("floors", 45), Phase("kernels_build", 90)

PLANS = {
    # Are the kernels correct, and how fast are they?
    "confirm": Plan(
        365,
        (
            _DEVICE,
            _BUILD,
            _FLOORS,
            Phase("kernels_correct", 150, reserve_s=60),
            Phase("kernels_time", 110, reserve_s=75),
            Phase("kernels_ncu", 45, reserve_s=20),
            Phase("kernels_sanitizer", 120, reserve_s=90),
        ),
    ),
    # Which variant is best, does the CUDA layer work, how fast is a whole encoder?
    "tune": Plan(
        325,
        (
            _DEVICE,
            _BUILD,
            Phase("kernels_variants", 100, reserve_s=45),
            Phase("gpu_tests", 75, reserve_s=30),
            _FLOORS,
            Phase("encoders", 150, reserve_s=90),
        ),
    ),
    "all": Plan(
        570,
        (
            _DEVICE,
            Phase("tensorrt", 90),
            _FLOORS,
            Phase("model_floors", 30),
            _BUILD,
            Phase("kernels_correct", 150),
            Phase("kernels_sanitizer", 120),
            Phase("kernels_time", 150, reserve_s=75),
            Phase("bundles", 150, reserve_s=60),
            Phase("engines", 150, reserve_s=60),
            Phase("encoder", 60),
            Phase("decoder", 45),
            Phase("image_to_mask", 60),
            Phase("gpu_tests", 120),
            Phase("leaks", 120),
            Phase("onnxruntime_cuda", 60),
            # Torch's times: for comparison, and the only times if no engine runs.
            Phase("torch_eager", 90, reserve_s=60),
            Phase("torch_compile", 240),
        ),
    ),
}
