"""The phases in their order. A new one is a module here with `run(work: Work)`, and a line in this table.

What everything else needs comes first; what takes longest and is needed by nobody comes last, as the budget may end
before it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """`phases/<name>.py`, and the seconds after which it is ended."""

    name: str
    limit_s: float


PHASES = (
    Phase("device", 30),
    Phase("tensorrt", 90),
    Phase("floors", 45),
    Phase("bundles", 150),
    Phase("engines", 150),
    Phase("encoder", 60),
    Phase("decoder", 45),
    Phase("image_to_mask", 60),
    Phase("gpu_tests", 120),
    Phase("leaks", 120),
    Phase("onnxruntime_cuda", 60),
    Phase("torch_eager", 90),
    Phase("torch_compile", 240),
)
