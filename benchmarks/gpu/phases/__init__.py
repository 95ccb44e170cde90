"""The phases in their order. A new one is a module here with `run(work: Work)`, and a line in this table.

What everything else needs comes first; what takes longest and is needed by nobody comes last, as the budget may end
before it: the limits add up to more than twice the budget. What is to be measured whatever becomes of the phases before
it reserves its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """`phases/<name>.py`, the seconds after which it is ended, and those that phases before it leave to it."""

    name: str
    limit_s: float
    reserve_s: float = 0


def allowed(phase: Phase, later: Sequence[Phase], left: float) -> float:
    """Seconds that a phase may take of the `left` ones of the budget."""
    return min(phase.limit_s, left - sum(other.reserve_s for other in later))


PHASES = (
    Phase("device", 30),
    Phase("tensorrt", 90),
    Phase("floors", 45),
    Phase("kernels_build", 90),
    Phase("kernels_correct", 75),
    Phase("kernels_sanitizer", 60),
    Phase("kernels_time", 100, reserve_s=60),
    Phase("bundles", 150, reserve_s=60),
    Phase("engines", 150, reserve_s=60),
    Phase("encoder", 60),
    Phase("decoder", 45),
    Phase("image_to_mask", 60),
    Phase("gpu_tests", 120),
    Phase("leaks", 120),
    Phase("onnxruntime_cuda", 60),
    # What engines are compared with, and all there is to measure where none runs.
    Phase("torch_eager", 90, reserve_s=60),
    Phase("torch_compile", 240),
)
