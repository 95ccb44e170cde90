"""Meta's module of this name: what its callers do with masks, boxes and grids of points. Tensors are torch's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from samrt.compat.segment_anything.utils.mask_data import MaskData
from samrt.rle import encode
from samrt.tensors import loaded_torch, to_numpy, to_tensor

__all__ = ["MaskData"]


def box_xyxy_to_xywh(box_xyxy: Any) -> Any:
    """One box x0, y0, x1, y1, [4], to x0, y0, width, height."""
    box = deepcopy(box_xyxy)  # a tensor, an array or a list
    box[2], box[3] = box_xyxy[2] - box_xyxy[0], box_xyxy[3] - box_xyxy[1]
    return box


def batched_mask_to_box(masks: Any) -> Any:
    """The box of each mask, bool [..., H, W] to int64 [..., 4]: first and last column and row that it has.

    [0, 0, 0, 0] for an empty mask.
    """
    found = to_numpy(masks).astype(bool)
    boxes = np.zeros((*found.shape[:-2], 4), np.int64)
    if found.size:
        columns: Any = found.any(axis=-2)
        rows: Any = found.any(axis=-1)
        for first, last, line in ((0, 2, columns), (1, 3, rows)):
            boxes[..., first] = line.argmax(axis=-1)
            boxes[..., last] = line.shape[-1] - 1 - line[..., ::-1].argmax(axis=-1)
        boxes[~columns.any(axis=-1)] = 0
    return to_tensor(boxes).to(masks.device)


def calculate_stability_score(masks: Any, mask_threshold: float, threshold_offset: float) -> Any:
    """The area above `mask_threshold + threshold_offset` over that above the difference, of logits [..., H, W]."""
    high, low = ((masks > mask_threshold + sign * threshold_offset).sum((-1, -2)) for sign in (1, -1))
    return high / low


def mask_to_rle_pytorch(tensor: Any) -> list[dict[str, Any]]:
    """Masks, bool [B, H, W], to uncompressed run lengths in column-major order; the first run is of 0."""
    results = []
    for mask in to_numpy(tensor).astype(bool):
        flat = mask.ravel(order="F")
        edges = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), flat.size]
        runs = np.diff(edges).tolist()
        results.append({"size": list(mask.shape), "counts": [0, *runs] if flat[:1].any() else runs})
    return results


def rle_to_mask(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Uncompressed run lengths to a mask, bool [H, W]."""
    counts = np.asarray(rle["counts"], np.int64)
    height, width = rle["size"]
    flat: NDArray[np.bool_] = np.repeat(np.arange(counts.size) % 2 == 1, counts)
    mask: NDArray[np.bool_] = flat.reshape(width, height).T
    return mask


def area_from_rle(rle: Mapping[str, Any]) -> int:
    """The pixels of a mask in uncompressed run lengths."""
    return int(sum(rle["counts"][1::2]))


def coco_encode_rle(uncompressed_rle: Mapping[str, Any]) -> dict[str, Any]:
    """Uncompressed run lengths to COCO's compressed ones."""
    return encode(np.ascontiguousarray(rle_to_mask(uncompressed_rle)))


def remove_small_regions(mask: NDArray[Any], area_thresh: float, mode: str) -> tuple[NDArray[np.bool_], bool]:
    """Fill the "holes" of a mask [H, W], or remove its "islands", that have fewer pixels than `area_thresh`.

    Returns the mask and whether anything was changed. A mask of small islands only keeps the largest.
    """
    if mode not in ("holes", "islands"):
        raise AssertionError(f'mode must be "holes" or "islands", not {mode!r}')
    holes = mode == "holes"
    mask = np.asarray(mask).astype(bool)
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask ^ holes).astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    small = areas < area_thresh
    if not small.any():
        return mask, False
    if not holes and small.all():
        small[areas.argmax()] = False
    changed = np.isin(labels, np.arange(1, count)[small])
    return (mask | changed if holes else mask & ~changed), True


def batch_iterator(batch_size: int, *args: Any) -> Iterator[list[Any]]:
    """Pieces of at most `batch_size` of sequences of one length, side by side."""
    if len({len(each) for each in args}) != 1:
        raise AssertionError("batch_iterator needs sequences of one length")
    for start in range(0, len(args[0]), batch_size):
        yield [each[start : start + batch_size] for each in args]


def build_point_grid(n_per_side: int) -> NDArray[np.float64]:
    """The centres of a grid of cells over the unit square, float64 [n * n, 2] (x, y), row by row."""
    centres = np.linspace(1 / (2 * n_per_side), 1 - 1 / (2 * n_per_side), n_per_side)
    return np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)


def build_all_layer_point_grids(n_per_side: int, n_layers: int, scale_per_layer: int) -> list[NDArray[np.float64]]:
    """A grid for the image and for the crops of each layer, each `scale_per_layer` times coarser."""
    return [build_point_grid(int(n_per_side / scale_per_layer**layer)) for layer in range(n_layers + 1)]


def generate_crop_boxes(
    im_size: tuple[int, ...], n_layers: int, overlap_ratio: float
) -> tuple[list[list[int]], list[int]]:
    """The image, then for each layer i its 2**(i + 1) squared crops, x0, y0, x1, y1; and the layer of each.

    Neighbours overlap by `overlap_ratio` of the image's shorter side in the first layer, half of that in the next.
    """
    height, width = im_size
    boxes, layers = [[0, 0, width, height]], [0]
    for layer in range(n_layers):
        count = 2 ** (layer + 1)
        overlap = int(overlap_ratio * min(height, width) * (2 / count))
        crop_width, crop_height = (-(-(overlap * (count - 1) + side) // count) for side in (width, height))
        for column, row in product(range(count), repeat=2):
            x, y = (crop_width - overlap) * column, (crop_height - overlap) * row
            boxes.append([x, y, min(x + crop_width, width), min(y + crop_height, height)])
            layers.append(layer + 1)
    return boxes, layers


def uncrop_boxes_xyxy(boxes: Any, crop_box: Sequence[int]) -> Any:
    """Boxes [B, 4] in pixels of a crop to pixels of the image."""
    return boxes + boxes.new_tensor([*crop_box[:2], *crop_box[:2]])


def uncrop_points(points: Any, crop_box: Sequence[int]) -> Any:
    """Points [..., 2] in pixels of a crop to pixels of the image."""
    return points + points.new_tensor(crop_box[:2])


def uncrop_masks(masks: Any, crop_box: Sequence[int], orig_h: int, orig_w: int) -> Any:
    """Masks [B, h, w] of a crop to [B, H, W] of the image."""
    x0, y0, x1, y1 = crop_box
    if (x0, y0, x1, y1) == (0, 0, orig_w, orig_h):
        return masks
    full = masks.new_zeros((*masks.shape[:-2], orig_h, orig_w))
    full[..., y0:y1, x0:x1] = masks
    return full


def is_box_near_crop_edge(boxes: Any, crop_box: Sequence[int], orig_box: Sequence[int], atol: float = 20.0) -> Any:
    """Which boxes [B, 4] of a crop, in its pixels, end at an edge of it that is not one of the image; bool [B]."""
    torch = loaded_torch()
    full = uncrop_boxes_xyxy(boxes, crop_box).float()
    at_crop, at_image = (torch.abs(full - full.new_tensor(edges)) <= atol for edges in (crop_box, orig_box))
    return (at_crop & ~at_image).any(dim=1)
