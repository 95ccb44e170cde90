"""How far a graph or an engine may be from its reference: the one table for export, build and tests.

A bound is never raised without a reason written beside it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """Bounds against the float32 reference: at export the checkpoint in torch, at build the bundle in ONNX Runtime."""

    embedding_relative_l2: float
    logits_relative_l2: float
    mask_iou: float  # at least
    iou_prediction: float  # absolute


TOLERANCES = {
    "fp32": Tolerance(embedding_relative_l2=1e-5, logits_relative_l2=1e-4, mask_iou=0.9999, iou_prediction=1e-4),
    # Half precision has 11 bits: each of some hundred operations in a row rounds by up to 5e-4. Torch's own half
    # precision differs as much from float32 on the same models.
    "fp16": Tolerance(embedding_relative_l2=2e-2, logits_relative_l2=5e-2, mask_iou=0.995, iou_prediction=1e-2),
}

# Relative to the root mean square of a mask's logits: what float32 alone may move one by. Two million logits are
# compared, so some come that close to the mask's threshold, where their sign says nothing.
LOGIT_ROUNDING = 1e-5
