"""Meta's module of this name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samrt.bundle.contract import Size
from samrt.compat.segment_anything.frames import check_frame
from samrt.geometry import ResizeLongestSide as _ResizeLongestSide


class ResizeLongestSide(_ResizeLongestSide):
    """`samrt.ResizeLongestSide`, which moves prompts only to the frame of a model that is in use.

    Images may be resized to any length.
    """

    def apply_coords(self, coords: ArrayLike, original_size: Size) -> NDArray[np.float64]:
        """[..., 2] (x, y) in pixels of the original image (H, W) to the prompts' frame; `apply_boxes` calls it.

        Raises:
            InputError: no loaded model has this frame.
        """
        check_frame(self.target_length)
        return super().apply_coords(coords, original_size)

    def apply_coords_torch(self, coords: Any, original_size: Size) -> Any:
        """As `apply_coords`, from a torch tensor to a new one of float32."""
        check_frame(self.target_length)
        return super().apply_coords_torch(coords, original_size)
