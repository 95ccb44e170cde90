"""The precisions of a bundle's graphs: one table that selection, tolerances and labels follow from.

The most exact comes first. A tolerance is never raised without a reason written beside it.
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
    # Relative to the root mean square of a mask's logits: so close to the threshold a logit may have either sign.
    logit_rounding: float


@dataclass(frozen=True)
class Precision:
    """How numbers are kept and computed inside the graphs; inputs and outputs are float32 in each.

    Attributes:
        title: its name in sentences.
        gpu_rank: the order in which engines on a GPU are preferred, the lowest first.
        float32_on_cpu: ONNX Runtime on a CPU computes such graphs in float32 all the same, so that its own arithmetic
            has to be compared elsewhere.
        tolerance: how far results may be from the float32 reference.
    """

    title: str
    gpu_rank: int
    float32_on_cpu: bool
    tolerance: Tolerance


PRECISIONS = {
    "fp32": Precision(
        "single precision",
        gpu_rank=1,
        float32_on_cpu=False,
        # Two million logits are compared, so some come close to the mask's threshold, where their sign says nothing.
        tolerance=Tolerance(
            embedding_relative_l2=1e-5,
            logits_relative_l2=1e-4,
            mask_iou=0.9999,
            iou_prediction=1e-4,
            logit_rounding=1e-5,
        ),
    ),
    "fp16": Precision(
        "half precision",
        gpu_rank=0,
        float32_on_cpu=True,
        # Half precision has 11 bits: each of some hundred operations in a row rounds by up to 5e-4. Torch's own half
        # precision differs as much from float32 on the same models: of the default model's logits (512 pixels) it
        # moves one in a thousand by 0.0015 to 0.0025 of their root mean square, and by 0.0037 at most. One of 0.00009
        # changed sign, in a mask of ten pixels. logit_rounding is below what half precision may do to any logit.
        tolerance=Tolerance(
            embedding_relative_l2=2e-2,
            logits_relative_l2=5e-2,
            mask_iou=0.995,
            iou_prediction=1e-2,
            logit_rounding=1e-3,
        ),
    ),
}
