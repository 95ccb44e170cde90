"""Meta's `SamPredictor` over a samrt model: code written for `segment_anything` runs by changing its import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samrt.bundle.contract import Size
from samrt.device.array import DeviceArray
from samrt.embedding import Embedding
from samrt.encoding import described
from samrt.errors import InputError
from samrt.geometry import Resize, ResizeLongestSide
from samrt.images import ImageSource, read_image
from samrt.model import Model
from samrt.prompts import Prompts, read_prompts, to_input_frame
from samrt.tensors import is_tensor, to_numpy, to_tensor

# Side of the frame of all of Meta's models, which code written for them may have as a number; and how far beyond a
# smaller frame a prompt may lie, in sides, before it is taken for one in Meta's.
_METAS_SIDE, _BEYOND = 1024, 1.05


class SamPredictor:
    """Encode one image, then predict masks for many prompts, with the calls of `segment_anything.SamPredictor`.

    Arrays are NumPy's. Torch tensors are taken too and answered with torch tensors on their device; samrt itself
    imports no torch. As with Meta's class a prompt may be empty or lie outside the image; `Model.predict` is stricter.
    The whole image is encoded; `Model.encode` takes a region.

    Attributes:
        model: what encodes and predicts.
        transform: the resizing for the model's input, with the methods of Meta's `ResizeLongestSide`.
        is_image_set: whether there is a current image. The next three describe it and may be set to an earlier one's.
        features: its embedding, float32 [1, C, h, w]; a mapping of names where the model has several features. Torch
            tensors where torch is loaded; else arrays, or a `DeviceArray` where a GPU made it.
        original_size: its (height, width).
        input_size: its (height, width) as resized for the model.
    """

    def __init__(self, sam_model: Model) -> None:
        self.model = sam_model
        self.transform = _transform(sam_model)
        self.is_image_set = False
        self.features: Any = None
        self.original_size: Size | None = None
        self.input_size: Size | None = None
        # What the decoder takes, and what of it `features` shows: a tensor on the GPU does not come back to the host.
        self._made: Mapping[str, Any] = {}
        self._shown: dict[str, Any] = {}

    @property
    def device(self) -> Any:
        """Where tensors belong: `Model.device`."""
        return self.model.device

    def set_image(self, image: ImageSource, image_format: str = "RGB") -> None:
        """Encode an image, [H, W, 3] in `image_format`; all else that `Model.encode` takes is taken too.

        Raises:
            InputError: the image or the format cannot be used; the current image stays set.
        """
        # If the encoder fails, no image is set, rather than the one before.
        pixels = read_image(image, image_format)
        self.reset_image()
        self._set(self.model.encode(pixels))

    def set_torch_image(self, transformed_image: Any, original_image_size: Size) -> None:
        """Encode an image that `transform` resized already.

        Args:
            transformed_image: tensor or array [1, 3, h, w] RGB in 0..255, of the size that `transform` gives.
            original_image_size: (H, W) before resizing.

        Raises:
            InputError: another shape, no pixels, NaN or infinity; the current image stays set.
        """
        pixels = to_numpy(transformed_image)
        geometry = self.model.geometry
        side = geometry.encoder_side
        if (
            pixels.ndim != 4
            or pixels.shape[:2] != (1, 3)
            or 0 in pixels.shape
            or not geometry.fills(pixels.shape[2:], side)
        ):
            raise InputError(
                f"set_torch_image needs [1, 3, h, w] with {described(geometry, side)}, not {list(pixels.shape)}; "
                "resize the image with predictor.transform"
            )
        with np.errstate(over="ignore"):
            pixels = pixels.astype(np.float32)
        if not np.isfinite(pixels).all():
            raise InputError("the image contains NaN or infinity; replace those pixels, e.g. with torch.nan_to_num")
        height, width = original_image_size
        self.reset_image()
        self._set(self.model.encode_resized(pixels[0].transpose(1, 2, 0), (int(height), int(width))))

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        """Predict the masks of one prompt on the current image.

        Args:
            point_coords: [N, 2] (x, y) in pixels of the original image.
            point_labels: [N]; 1 foreground, 0 background. Ignored without `point_coords`.
            box: [4], x0, y0, x1, y1 in pixels of the original image.
            mask_input: [1, L, L] logits of an earlier prediction; a bool mask counts as 0 and 1.
            multimask_output: three masks instead of one.
            return_logits: leave the masks unthresholded.

        Returns:
            masks, bool (or float32 logits) [C, H, W]; predicted IoU, float32 [C]; low-res logits, float32 [C, L, L].

        Raises:
            RuntimeError: no image is set.
            InputError: the prompt is malformed.
        """
        embedding = self._embedding("mask prediction")
        if box is not None and np.shape(box) == (1, 4):
            box = np.asarray(box)[0]
        labels = None if point_coords is None else point_labels
        masks = _bool_as_float(mask_input)
        prompts = read_prompts(point_coords, labels, box, masks, self.model.geometry.low_res_side)
        if prompts.batched:
            raise InputError("predict takes one prompt; use predict_torch, or Model.predict, for a batch")
        prompts = to_input_frame(prompts, embedding)
        prediction = self.model.decoder.predict(embedding, prompts, multimask_output, return_logits)
        return prediction.masks, prediction.iou_predictions, prediction.low_res_masks

    def predict_torch(
        self,
        point_coords: Any,
        point_labels: Any,
        boxes: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Any, Any, Any]:
        """Predict the masks of a batch of prompts, moved to the resized image's pixels with `transform` beforehand.

        Args:
            point_coords: tensor or array [B, N, 2].
            point_labels: [B, N]. Ignored without `point_coords`.
            boxes: [B, 4] or [B, 1, 4].
            mask_input: [B, 1, L, L], or [1, 1, L, L] for all B; a bool mask counts as 0 and 1.
            multimask_output: three masks instead of one.
            return_logits: leave the masks unthresholded.

        Returns:
            masks [B, C, H, W], predicted IoU [B, C], low-res logits [B, C, L, L]: torch tensors if any argument was
            one, or if there was none and torch is loaded; else arrays.

        Raises:
            RuntimeError: no image is set.
            InputError: the prompt is malformed, or was moved to the frame of a larger model.
        """
        embedding = self._embedding("mask prediction")
        given = point_coords, point_labels, boxes, mask_input
        coords, labels, corners, masks = (None if each is None else to_numpy(each) for each in given)
        if coords is None:
            labels = None
        if corners is not None and corners.ndim == 3 and corners.shape[1:] == (1, 4):
            corners = corners[:, 0]
        masks = _bool_as_float(masks)
        leader = corners if coords is None or coords.size == 0 else coords
        if masks is not None and masks.ndim == 4 and len(masks) == 1 and leader is not None and leader.ndim > 1:
            masks = np.broadcast_to(masks, (len(leader), *masks.shape[1:]))
        prompts = read_prompts(coords, labels, corners, masks, self.model.geometry.low_res_side)
        if not prompts.batched and any(each is not None for each in given):
            raise InputError("predict_torch takes batches with a first axis B; use predict for one prompt")
        self._check_frame(prompts)
        prompts = replace(prompts, batched=True)
        prediction = self.model.decoder.predict(embedding, prompts, multimask_output, return_logits)
        results = prediction.masks, prediction.iou_predictions, prediction.low_res_masks
        tensors = [each for each in given if is_tensor(each)]
        if not tensors and any(each is not None for each in given):
            return results
        masks_, scores, low_res = map(to_tensor, results)
        if tensors:
            device = tensors[0].device
            return masks_.to(device), scores.to(device), low_res.to(device)
        return masks_, scores, low_res

    def get_image_embedding(self) -> Any:
        """The current image's embedding, as `features`.

        Raises:
            RuntimeError: no image is set.
        """
        self._check_set("an embedding can be returned")
        return self.features

    def reset_image(self) -> None:
        """Forget the current image."""
        self.is_image_set = False
        self.features = self.original_size = self.input_size = None
        self._made, self._shown = {}, {}

    def _set(self, embedding: Embedding) -> None:
        self._made = embedding.features
        self._shown = {name: to_tensor(feature) for name, feature in embedding.features.items()}
        self.features = dict(self._shown) if len(self._shown) > 1 else next(iter(self._shown.values()))
        self.original_size = embedding.original_size
        self.input_size = embedding.input_size
        self.is_image_set = True

    def _check_set(self, purpose: str) -> tuple[Size, Size]:
        if not self.is_image_set or self.original_size is None or self.input_size is None:
            raise RuntimeError(f"an image must be set with .set_image(...) before {purpose}")
        return self.original_size, self.input_size

    def _embedding(self, purpose: str) -> Embedding:
        sizes = self._check_set(purpose)
        features = {}
        for name, feature in self._by_name().items():
            if feature is self._shown.get(name):
                features[name] = self._made[name]
            else:
                features[name] = feature if isinstance(feature, DeviceArray) else to_numpy(feature)
        return Embedding(features, *sizes, self.model.manifest.model_id)

    def _check_frame(self, prompts: Prompts) -> None:
        """Refuse coordinates that only the frame of a larger model holds; what is a little outside may be meant."""
        side = self.model.geometry.prompt_side
        if side >= _METAS_SIDE:
            return
        for coords in (prompts.point_coords, prompts.boxes):
            if coords is not None and coords.max(initial=0) > _BEYOND * side:
                raise InputError(
                    f"a coordinate is {coords.max():g}, and this model's frame has {side} pixels; move prompts there "
                    f"with predictor.transform (Meta's models have {_METAS_SIDE}), and clip them to the image"
                )

    def _by_name(self) -> dict[str, Any]:
        if isinstance(self.features, Mapping):
            return dict(self.features)
        return {self.model.manifest.features[0].name: self.features}


def _transform(model: Model) -> Resize:
    geometry = model.geometry
    if geometry.resize == "longest_side" and geometry.encoder_side == geometry.prompt_side:
        return ResizeLongestSide(geometry.encoder_side)
    return Resize(geometry)


def _bool_as_float(mask_input: Any) -> Any:
    """A bool mask, array or tensor, as float32 0 and 1, as torch converts it in Meta's class; all else as it is."""
    if str(getattr(mask_input, "dtype", "")) in ("bool", "torch.bool"):
        return to_numpy(mask_input).astype(np.float32)
    return mask_input
