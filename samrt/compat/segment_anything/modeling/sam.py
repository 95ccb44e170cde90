"""Meta's module of this name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from samrt.bundle.contract import Size
from samrt.compat.segment_anything.frames import note_model
from samrt.errors import InputError
from samrt.geometry import normalize_and_pad, upscale_masks
from samrt.model import Model
from samrt.predictor import SamPredictor
from samrt.tensors import to_numpy, to_tensor

# What torch modules have, and what `Sam` consists of: the weights are in the graphs, which take prompts and images.
_WEIGHTS = "the weights are in the bundle. Export another checkpoint instead"
_PARTS = "the graphs have no such part. Use SamPredictor, or call the model"
_ABSENT = {
    **dict.fromkeys(("state_dict", "load_state_dict", "parameters", "named_parameters", "modules"), _WEIGHTS),
    **dict.fromkeys(("train", "half", "bfloat16", "register_buffer", "pixel_mean", "pixel_std"), _WEIGHTS),
    **dict.fromkeys(("prompt_encoder", "mask_decoder"), _PARTS),
}


class Sam(Model):
    """A `samrt.Model` that can be called as Meta's `Sam`. Tensors are taken and returned; without torch, arrays."""

    training = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        note_model(self)

    def __call__(self, batched_input: Sequence[dict[str, Any]], multimask_output: bool) -> list[dict[str, Any]]:
        """Predict the masks of several images, each with its prompts.

        Args:
            batched_input: for each image `image` [3, h, w] RGB in 0..255, resized; `original_size` (H, W); and any of
                `point_coords` [B, N, 2] with `point_labels` [B, N], `boxes` [B, 4], `mask_inputs` [B, 1, L, L], in
                pixels of the resized image.
            multimask_output: three masks for each prompt instead of one.

        Returns:
            For each image `masks` bool [B, C, H, W], `iou_predictions` [B, C], `low_res_logits` [B, C, L, L].

        Raises:
            InputError: an image or a prompt cannot be used.
        """
        results = []
        for record in batched_input:
            predictor = SamPredictor(self)
            predictor.set_torch_image(record["image"][None], record["original_size"])
            masks, scores, low_res = predictor.predict_torch(
                record.get("point_coords"),
                record.get("point_labels"),
                record.get("boxes"),
                record.get("mask_inputs"),
                multimask_output,
            )
            results.append({"masks": masks, "iou_predictions": scores, "low_res_logits": low_res})
        return results

    forward = __call__

    def preprocess(self, x: Any) -> Any:
        """Normalise and pad resized images, [3, h, w] or [B, 3, h, w] RGB in 0..255, to float32 [..., 3, S, S].

        Raises:
            InputError: another shape, or larger than the model's input.
        """
        pixels = to_numpy(x)
        side = self.geometry.encoder_side
        if pixels.ndim not in (3, 4) or pixels.shape[-3] != 3 or not 0 < max(pixels.shape[-2:]) <= side:
            raise InputError(f"preprocess needs [3, h, w] with sides of at most {side}, not {list(pixels.shape)}")
        images = pixels.reshape(-1, *pixels.shape[-3:]).transpose(0, 2, 3, 1)
        prepared = np.concatenate([normalize_and_pad(image, self.geometry) for image in images])
        return to_tensor(prepared.reshape(*pixels.shape[:-2], side, side))

    def postprocess_masks(self, masks: Any, input_size: Size, original_size: Size) -> Any:
        """Low-res logits [B, C, L, L] to logits of the original image's size, float32 [B, C, H, W]."""
        low_res = to_numpy(masks).astype(np.float32, copy=False)
        sizes = (int(input_size[0]), int(input_size[1])), (int(original_size[0]), int(original_size[1]))
        return to_tensor(upscale_masks(low_res, self.geometry, *sizes))

    def float(self) -> Sam:
        """The model itself: its inputs and results are float32."""
        return self

    def cpu(self) -> Sam:
        """`to("cpu")`."""
        return self.to("cpu")

    def cuda(self, device: Any = "cuda") -> Sam:
        """`to("cuda")`."""
        return self.to("cuda" if device is None else device)

    def requires_grad_(self, requires_grad: bool = False) -> Sam:
        """The model itself, which has no gradients to ask for."""
        if requires_grad:
            raise AttributeError(f"samrt's Sam cannot be trained; {_WEIGHTS}")
        return self

    def __getattr__(self, name: str) -> Any:
        reason = f"; {_ABSENT[name]}" if name in _ABSENT else ""
        raise AttributeError(f"samrt's {type(self).__name__} has no attribute {name!r}{reason}")
