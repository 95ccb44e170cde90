"""Resizing, normalising and upscaling, against torch and Meta's own functions."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from contracts import MEAN, STD, geometry
from oracle import photograph, segment_anything
from torch.nn import functional as F

from samrt.bundle.contract import Normalization, resize_shape
from samrt.geometry import (
    ResizeLongestSide,
    _upscale_window,
    normalize_and_pad,
    resize_image,
    scale_coords,
    threshold_masks,
    upscale_masks,
)

SIZES = [(1, 1), (1, 7), (480, 640), (640, 480), (427, 640), (333, 500), (64, 64), (1365, 2048), (70, 9)]


def _meta_transform(long_side: int) -> Any:
    segment_anything()
    return sys.modules["segment_anything.utils.transforms"].ResizeLongestSide(long_side)


def _meta_sam(image_size: int) -> Any:
    """What `Sam.preprocess` and `Sam.postprocess_masks` use of a Sam."""
    return SimpleNamespace(
        image_encoder=SimpleNamespace(img_size=image_size),
        pixel_mean=torch.tensor(MEAN).view(-1, 1, 1),
        pixel_std=torch.tensor(STD).view(-1, 1, 1),
    )


def _sam_class() -> Any:
    segment_anything()
    return sys.modules["segment_anything.modeling.sam"].Sam


def _upscaled_by_torch(low_res: np.ndarray, image_size: int, input_size: Any, original_size: Any) -> np.ndarray:
    masks = torch.from_numpy(low_res).reshape(1, -1, *low_res.shape[-2:])
    masks = F.interpolate(masks, (image_size, image_size), mode="bilinear", align_corners=False)
    masks = masks[..., : input_size[0], : input_size[1]]
    masks = F.interpolate(masks, original_size, mode="bilinear", align_corners=False)
    return masks.reshape(*low_res.shape[:-2], *original_size).numpy()


@pytest.mark.parametrize("long_side", [64, 256, 1024])
def test_resize_shape_is_metas(long_side: int) -> None:
    random = np.random.default_rng(0)
    for height, width in [*SIZES, *random.integers(1, 3000, (200, 2)).tolist()]:
        meta = _meta_transform(long_side).get_preprocess_shape(height, width, long_side)
        assert resize_shape(height, width, long_side) == tuple(max(1, side) for side in meta)


def test_resize_shape_never_loses_a_side() -> None:
    assert resize_shape(1, 5000, 1024) == (1, 1024)
    assert resize_shape(5000, 1, 64) == (64, 1)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (11, 64), (100, 37), (1, 1), (200, 300)])
def test_resized_image_is_metas(size: tuple[int, int]) -> None:
    image = photograph(*size)
    result = resize_image(image, geometry(64))
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, _meta_transform(64).apply_image(image))
    np.testing.assert_array_equal(ResizeLongestSide(64).apply_image(image), result)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [(64, 48), (30, 64), (64, 64), (1, 64)])
def test_normalised_image_is_metas_to_the_last_bit(size: tuple[int, int], dtype: Any) -> None:
    image = photograph(*size).astype(dtype)
    if dtype == np.float32:
        image += np.random.default_rng(0).random(image.shape, np.float32)
    result = normalize_and_pad(image, geometry(64))
    meta = _sam_class().preprocess(_meta_sam(64), torch.from_numpy(image.transpose(2, 0, 1)[None].copy()))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, meta.numpy())


def test_min_max_spans_0_to_1_over_all_channels_before_padding() -> None:
    image = photograph(20, 64) // 2 + 40
    result = normalize_and_pad(image, geometry(64, normalization=Normalization("min_max")))
    low, high = image.min(), image.max()
    expected = (image.astype(np.float64) - low) / (int(high) - int(low))
    np.testing.assert_array_equal(result[0, :, :20], expected.transpose(2, 0, 1).astype(np.float32))
    assert result[0, :, :20].min() == 0
    assert result[0, :, :20].max() == 1
    assert not result[0, :, 20:].any()


def test_min_max_of_a_flat_image_is_zero() -> None:
    assert not normalize_and_pad(
        np.full((64, 64, 3), 200, np.uint8), geometry(64, normalization=Normalization("min_max"))
    ).any()


@pytest.mark.parametrize("size", SIZES)
def test_coordinates_are_metas(size: tuple[int, int]) -> None:
    coords = np.random.default_rng(0).random((4, 5, 2)) * 500
    boxes = coords.reshape(-1, 4)
    ours, meta = ResizeLongestSide(1024), _meta_transform(1024)
    before = coords.copy()
    np.testing.assert_array_equal(ours.apply_coords(coords, size), meta.apply_coords(coords, size))
    np.testing.assert_array_equal(
        scale_coords(coords, size, resize_shape(*size, 1024)), meta.apply_coords(coords, size)
    )
    np.testing.assert_array_equal(ours.apply_boxes(boxes, size), meta.apply_boxes(boxes, size))
    np.testing.assert_array_equal(coords, before)
    tensor = torch.from_numpy(coords).float()
    assert torch.equal(ours.apply_coords_torch(tensor, size), meta.apply_coords_torch(tensor, size))
    assert torch.equal(
        ours.apply_boxes_torch(tensor.reshape(-1, 4), size), meta.apply_boxes_torch(tensor.reshape(-1, 4), size)
    )
    assert torch.equal(tensor, torch.from_numpy(before).float())
    integers = torch.from_numpy(coords).long()
    assert torch.equal(ours.apply_coords_torch(integers, size), meta.apply_coords_torch(integers, size))


@pytest.mark.parametrize(("image_size", "low_res"), [(64, 64), (64, 16), (56, 16), (1024, 256)])
@pytest.mark.parametrize("size", SIZES)
def test_upscaled_masks_are_torchs(size: tuple[int, int], image_size: int, low_res: int) -> None:
    logits = np.random.default_rng(0).standard_normal((2, 1, low_res, low_res)).astype(np.float32)
    input_size = resize_shape(*size, image_size)
    result = upscale_masks(logits, geometry(image_size, low_res), input_size, size)
    expected = _upscaled_by_torch(logits, image_size, input_size, size)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=2e-4)


def test_upscaled_masks_are_metas() -> None:
    logits = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
    meta = _sam_class().postprocess_masks(_meta_sam(64), torch.from_numpy(logits), (40, 64), (100, 160))
    np.testing.assert_allclose(upscale_masks(logits, geometry(64, 16), (40, 64), (100, 160)), meta.numpy(), atol=1e-5)


@pytest.mark.parametrize(("image_size", "low_res"), [(64, 64), (64, 16), (56, 16)])
@pytest.mark.parametrize("threshold", [0.0, -0.4, 1.5])
def test_thresholded_masks_are_the_thresholded_upscaled_masks(image_size: int, low_res: int, threshold: float) -> None:
    random = np.random.default_rng(0)
    for trial in range(60):
        height, width = random.integers(1, 200, 2).tolist()
        if trial % 3 == 0:
            width = 2 * height
        logits = np.full((2, low_res, low_res), -3, np.float32)
        top, left = random.integers(0, low_res, 2)
        spot = logits[0, top : top + random.integers(1, 6), left : left + random.integers(1, 6)]
        spot[:] = random.standard_normal(spot.shape) * 3 + threshold
        input_size = resize_shape(height, width, image_size)
        result = threshold_masks(logits, geometry(image_size, low_res), input_size, (height, width), threshold)
        upscaled = upscale_masks(logits, geometry(image_size, low_res), input_size, (height, width))
        assert result.dtype == np.bool_
        # Computed on a window, a logit may differ by rounding.
        decided = np.abs(upscaled - threshold) > 1e-4
        np.testing.assert_array_equal(result[decided], (upscaled > threshold)[decided])


@pytest.mark.parametrize(
    "sizes", [(64, 16, (43, 64), (86, 128)), (56, 16, (42, 56), (60, 80)), (64, 64, (48, 64), (12, 16))]
)
def test_any_window_is_that_part_of_the_whole(sizes: Any) -> None:
    image_size, low_res, input_size, original_size = sizes
    logits = np.random.default_rng(0).standard_normal((low_res, low_res)).astype(np.float32)
    whole = upscale_masks(logits, geometry(image_size, low_res), input_size, original_size)
    buffer = np.empty(whole.size, np.float32)
    for top, left in np.ndindex(8, 8):
        window = (top, original_size[0] - 3), (left, min(left + 5, original_size[1]))
        part = _upscale_window(logits, window, image_size, input_size, original_size, buffer=buffer)
        np.testing.assert_allclose(part, whole[slice(*window[0]), slice(*window[1])], atol=1e-5)


def test_masks_in_the_padding_only_are_empty() -> None:
    logits = np.full((1, 16, 16), -1, np.float32)
    logits[:, 12:] = 5
    assert not threshold_masks(logits, geometry(64, 16), (32, 64), (320, 640), 0.0).any()


def test_mask_that_fills_the_image_is_full() -> None:
    assert threshold_masks(np.ones((1, 16, 16), np.float32), geometry(64, 16), (43, 64), (333, 500), 0.0).all()


def test_low_res_masks_are_not_changed() -> None:
    logits = np.random.default_rng(0).standard_normal((1, 16, 16)).astype(np.float32)
    before = logits.copy()
    threshold_masks(logits, geometry(64, 16), (32, 64), (100, 200), 0.0)
    upscale_masks(logits, geometry(64, 16), (32, 64), (100, 200))
    np.testing.assert_array_equal(logits, before)


def test_importing_the_transforms_imports_no_torch() -> None:
    code = "import samrt.geometry, samrt.model, samrt.predictor, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
