"""Pure functions between the frame of the original image and the frames of the model.

Four frames: the *original* image H x W; the *encoder's*, the image resized into a square of `Geometry.encoder_side`;
the *prompts'*, the same square with the side S = `Geometry.prompt_side`, in which the image has its `input_size`; the
*low-res* masks L x L, over the same square. Where only a region of an image is seen, the original is that region.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from math import gcd
from typing import Any, cast

import cv2
import numpy as np
import PIL.Image
from numpy.typing import ArrayLike, NDArray

from samrt.bundle.contract import Geometry, Normalization, Size, resize_shape

_Range = tuple[int, int]  # first, one past the last


def resize_image(image: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """Resize uint8 [H, W] or [H, W, C] for the encoder, with Pillow's antialiased bilinear filter.

    The filter of Meta's `ResizeLongestSide.apply_image`; OpenCV's bilinear filter does not antialias.
    """
    height, width = geometry.encoder_size(*image.shape[:2])
    return np.array(PIL.Image.fromarray(image).resize((width, height), PIL.Image.Resampling.BILINEAR))


def normalize_and_pad(image: NDArray[Any], geometry: Geometry) -> NDArray[np.float32]:
    """Turn a resized image into model input: normalise, then pad with zeros right and below.

    The normalisation "mean_std" is Meta's `Sam.preprocess`; "min_max" is LiteMedSAM's, over the three channels.

    Args:
        image: uint8 or float32 [h, w, 3] RGB in 0..255, h and w at most the encoder's side E.
        geometry: the model's.

    Returns:
        float32 [1, 3, E, E].
    """
    side, normalization = geometry.encoder_side, geometry.normalization
    if normalization.mean is not None and normalization.std is not None:
        shift = np.array(normalization.mean, np.float32)
        scale = np.array(normalization.std, np.float32)
    else:
        low, high = np.float32(image.min()), np.float32(image.max())
        shift = np.full(3, low)
        scale = np.full(3, max(high - low, np.float32(1e-8)))
    height, width = image.shape[:2]
    padded = np.zeros((1, 3, side, side), np.float32)
    for channel in range(3):
        plane = padded[0, channel, :height, :width]
        np.subtract(image[:, :, channel], shift[channel], out=plane)
        np.divide(plane, scale[channel], out=plane)
    return padded


def scale_coords(coords: ArrayLike, original_size: Size, input_size: Size) -> NDArray[np.float64]:
    """Move float [..., 2] (x, y) from pixels of the original image to the prompts' frame (Meta's `apply_coords`)."""
    scaled = np.array(coords, np.float64)
    scaled[..., 0] *= input_size[1] / original_size[1]
    scaled[..., 1] *= input_size[0] / original_size[0]
    return scaled


def upscale_masks(
    low_res: NDArray[np.float32], geometry: Geometry, input_size: Size, original_size: Size
) -> NDArray[np.float32]:
    """Logits at the size of the original image: bilinearly from L to S, the padding cut off, then to the original.

    Meta's `Sam.postprocess_masks`. With `resize` "square", straight from L to the original, as SAM 2's
    `SAM2Transforms.postprocess_masks` does. float32 [..., L, L] to float32 [..., H, W].
    """
    masks = np.empty((*low_res.shape[:-2], *original_size), np.float32)
    everything = (0, original_size[0]), (0, original_size[1])
    side, input_size = _between(low_res, geometry, input_size)
    for plane, mask in _planes(low_res, masks):
        _upscale_window(plane, everything, side, input_size, original_size, buffer=mask.reshape(-1))
    return masks


def threshold_masks(
    low_res: NDArray[np.float32], geometry: Geometry, input_size: Size, original_size: Size, threshold: float
) -> NDArray[np.bool_]:
    """`upscale_masks(...) > threshold`, without keeping the logits and without upscaling where no mask can be.

    float32 [..., L, L] to bool [..., H, W].
    """
    masks = np.zeros((*low_res.shape[:-2], *original_size), np.bool_)
    # One buffer for all masks: to get fresh memory of this size costs more than the resize that fills it.
    buffer = np.empty(original_size[0] * original_size[1], np.float32)
    side, input_size = _between(low_res, geometry, input_size)
    for plane, mask in _planes(low_res, masks):
        above = plane > threshold
        rows = _reached(np.any(above, axis=1), side, input_size[0], original_size[0])
        columns = _reached(np.any(above, axis=0), side, input_size[1], original_size[1])
        if rows[0] < rows[1] and columns[0] < columns[1]:
            logits = _upscale_window(plane, (rows, columns), side, input_size, original_size, buffer=buffer)
            np.greater(logits, threshold, out=mask[slice(*rows), slice(*columns)])
    return masks


def _between(low_res: NDArray[np.float32], geometry: Geometry, input_size: Size) -> tuple[int, Size]:
    """The side of the square that masks pass through on their way to the original, and the image's size in it."""
    if geometry.resize == "square":
        side = low_res.shape[-1]
        return side, (side, side)
    return geometry.prompt_side, input_size


def _planes(low_res: NDArray[np.float32], masks: NDArray[Any]) -> Iterator[tuple[NDArray[np.float32], NDArray[Any]]]:
    """Pair each [L, L] with its [H, W], as views. One OpenCV call per mask is faster than one on all as channels."""
    return zip(low_res.reshape(-1, *low_res.shape[-2:]), masks.reshape(-1, *masks.shape[-2:]), strict=True)


def _upscale_window(
    plane: NDArray[np.float32],
    window: tuple[_Range, _Range],
    image_size: int,
    input_size: Size,
    original_size: Size,
    *,
    buffer: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The part `window` (rows, columns) of the upscaled `plane`; it lies in `buffer`, flat, of the original's size."""
    inner, outer = zip(*map(_blocks, window, input_size, original_size), strict=True)
    low, padded = zip(*map(_blocks, inner, plane.shape, (image_size, image_size)), strict=True)
    fine = _resize(_cut(plane, low), padded)
    height, width = (last - first for first, last in outer)
    coarse = _resize(_cut(fine, inner, origin=padded), outer, buffer[: height * width].reshape(height, width))
    return _cut(coarse, window, origin=outer)


def _blocks(wanted: _Range, source: int, target: int) -> tuple[_Range, _Range]:
    """Parts of a source axis and a target axis such that resizing the one to the other gives `wanted`, as if whole.

    Both axes are cut into as many equal blocks as they have in common, so block i is resized from block i at the same
    ratio and phase as the whole; one more block on each side serves the neighbours that the interpolation reaches for.
    """
    count = gcd(source, target)
    from_block, to_block = source // count, target // count
    first = max(wanted[0] // to_block - 1, 0)
    last = min(-(-wanted[1] // to_block) + 1, count)
    return (first * from_block, last * from_block), (first * to_block, last * to_block)


def _reached(above: NDArray[np.bool_], image_size: int, input_side: int, original_side: int) -> _Range:
    """The original's rows (or columns) where a low-res row `above` the threshold has weight; the others lie below."""
    hot = np.flatnonzero(above)
    if hot.size == 0:
        return 0, 0
    first, last = int(hot[0]), int(hot[-1]) + 1
    # Each resize lets a pixel reach one pixel of its own size further, and never beyond the image.
    for source, target, end in ((above.size, image_size, input_side), (input_side, original_side, original_side)):
        first = max((first - 1) * target // source, 0)
        last = min(-(-(last + 1) * target // source), end)
    return first, last


def _cut(
    array: NDArray[np.float32], part: tuple[_Range, ...], origin: tuple[_Range, ...] = ((0, 0), (0, 0))
) -> NDArray[np.float32]:
    """The rows and columns `part`, counted from where `array` begins at `origin`."""
    (top, bottom), (left, right) = part
    y, x = origin[0][0], origin[1][0]
    return array[top - y : bottom - y, left - x : right - x]


def _resize(
    array: NDArray[np.float32], target: tuple[_Range, ...], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    (top, bottom), (left, right) = target
    resized = cv2.resize(array, (right - left, bottom - top), dst=out, interpolation=cv2.INTER_LINEAR)
    return cast("NDArray[np.float32]", resized)


class Resize:
    """Resizing of images, points and boxes for a model, with the methods of Meta's `ResizeLongestSide`.

    The `_torch` methods compute with the tensor they are given, so that samrt needs no torch.
    """

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self.target_length = geometry.prompt_side

    def apply_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H, W, C] to uint8 [h, w, C], resized for the encoder."""
        return resize_image(image, self._geometry)

    def apply_image_torch(self, image: Any) -> Any:
        """Tensor float [B, C, H, W] to [B, C, h, w], resized for the encoder with torch's antialiased interpolation.

        The pixels differ a little from those of `apply_image`, which models are trained on.
        """
        interpolate = sys.modules["torch"].nn.functional.interpolate
        size = self._geometry.encoder_size(*image.shape[2:])
        return interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)

    def apply_coords(self, coords: ArrayLike, original_size: Size) -> NDArray[np.float64]:
        """[..., 2] (x, y) in pixels of the original image (H, W) to the prompts' frame."""
        return scale_coords(coords, original_size, self._input_size(original_size))

    def apply_boxes(self, boxes: ArrayLike, original_size: Size) -> NDArray[np.float64]:
        """Boxes x0, y0, x1, y1, [B, 4] or [4], to [B, 4] in the prompts' frame."""
        corners = np.asarray(boxes).reshape(-1, 2, 2)
        return self.apply_coords(corners, original_size).reshape(-1, 4)

    def apply_coords_torch(self, coords: Any, original_size: Size) -> Any:
        """As `apply_coords`, from a torch tensor to a new one of float32."""
        height, width = self._input_size(original_size)
        scaled = coords.clone().float()
        scaled[..., 0] = scaled[..., 0] * (width / original_size[1])
        scaled[..., 1] = scaled[..., 1] * (height / original_size[0])
        return scaled

    def apply_boxes_torch(self, boxes: Any, original_size: Size) -> Any:
        """As `apply_boxes`, from a torch tensor to a new one of float32."""
        return self.apply_coords_torch(boxes.reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def _input_size(self, original_size: Size) -> Size:
        return self._geometry.input_size(*original_size)


class ResizeLongestSide(Resize):
    """Meta's class of this name: the longer side becomes `target_length`."""

    def __init__(self, target_length: int) -> None:
        # Neither the low-res side nor the normalisation takes part in resizing.
        super().__init__(Geometry(target_length, target_length, target_length, Normalization("min_max")))

    @staticmethod
    def get_preprocess_shape(oldh: int, oldw: int, long_side_length: int) -> Size:
        """`resize_shape` under Meta's name."""
        return resize_shape(oldh, oldw, long_side_length)
