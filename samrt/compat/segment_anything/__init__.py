"""Meta's package `segment_anything` over samrt: its public names, in its modules.

    from samrt.compat import segment_anything

    segment_anything.install("vit_b")  # from here on, `import segment_anything` is this package

`install` is for code that cannot be edited; code that can may import from here. docs/segment_anything.md lists what is
kept.
"""

from samrt.compat.segment_anything import automatic_mask_generator, modeling, predictor, utils
from samrt.compat.segment_anything.automatic_mask_generator import SamAutomaticMaskGenerator
from samrt.compat.segment_anything.build_sam import (
    build_sam,
    build_sam_vit_b,
    build_sam_vit_h,
    build_sam_vit_l,
    sam_model_registry,
)
from samrt.compat.segment_anything.installing import install, uninstall
from samrt.compat.segment_anything.predictor import SamPredictor

__all__ = [
    "SamAutomaticMaskGenerator",
    "SamPredictor",
    "automatic_mask_generator",
    "build_sam",
    "build_sam_vit_b",
    "build_sam_vit_h",
    "build_sam_vit_l",
    "install",
    "modeling",
    "predictor",
    "sam_model_registry",
    "uninstall",
    "utils",
]
