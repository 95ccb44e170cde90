"""Meta's module of this name: functions from a checkpoint's path to a model."""

from __future__ import annotations

import os
from collections.abc import Callable

from samrt.compat.segment_anything.installing import load_sam
from samrt.compat.segment_anything.modeling.sam import Sam


def build_sam(checkpoint: str | os.PathLike[str] | None = None) -> Sam:
    """Load a model. Which of Meta's sizes was asked for makes no difference: the bundle says what it holds.

    Args:
        checkpoint: a bundle's path; or that of a checkpoint that was exported beside itself: `sam_vit_b.pth` to the
            bundle `sam_vit_b.samrt`. None: the bundle of `install`, else the model that comes with samrt.

    Raises:
        BundleError: there is no bundle, or it is damaged, or it was not made from that checkpoint.
        BackendError: as `samrt.load`.
    """
    return load_sam(checkpoint)


build_sam_vit_h = build_sam_vit_l = build_sam_vit_b = build_sam

sam_model_registry: dict[str, Callable[..., Sam]] = {
    "default": build_sam,
    "vit_h": build_sam_vit_h,
    "vit_l": build_sam_vit_l,
    "vit_b": build_sam_vit_b,
}
