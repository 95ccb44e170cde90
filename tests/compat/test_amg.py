"""`utils.amg` gives what Meta's functions of these names give."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from oracle import segment_anything

from samrt.compat.segment_anything.utils import amg

LOGITS = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 3, 20, 30)).astype(np.float32))
MASKS = LOGITS[:, 0] > 0.4
MASKS[1], MASKS[2] = False, True
MASKS[3, 0, 0], MASKS[4, 0, 0] = True, False
BOXES = torch.tensor([[0.0, 0, 10, 10], [40, 35, 55, 60], [5, 50, 99, 59]])
CROP, IMAGE = [100, 0, 200, 60], [0, 0, 200, 60]
RLE = {"size": [20, 30], "counts": [0, 3, 500, 97]}
CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("box_xyxy_to_xywh", (BOXES[2],)),
    ("box_xyxy_to_xywh", ([1, 2, 5, 9],)),
    ("box_xyxy_to_xywh", (BOXES[1].numpy(),)),
    ("batched_mask_to_box", (MASKS,)),
    ("batched_mask_to_box", (MASKS[0],)),
    ("batched_mask_to_box", (LOGITS > 0.5,)),
    ("calculate_stability_score", (LOGITS[:, 0], 0.0, 0.5)),
    ("mask_to_rle_pytorch", (MASKS,)),
    ("rle_to_mask", (RLE,)),
    ("area_from_rle", (RLE,)),
    ("coco_encode_rle", (RLE,)),
    ("remove_small_regions", (MASKS[0].numpy(), 30, "holes")),
    ("remove_small_regions", (MASKS[0].numpy(), 30, "islands")),
    ("remove_small_regions", (MASKS[0].numpy(), 10_000, "islands")),
    ("remove_small_regions", (MASKS[1].numpy(), 30, "islands")),
    ("build_point_grid", (5,)),
    ("build_all_layer_point_grids", (32, 2, 2)),
    ("generate_crop_boxes", ((333, 500), 2, 512 / 1500)),
    ("generate_crop_boxes", ((500, 100), 0, 0.3)),
    ("uncrop_boxes_xyxy", (BOXES, CROP)),
    ("uncrop_points", (BOXES[:, None, :2], CROP)),
    ("uncrop_masks", (MASKS, [3, 5, 33, 25], 40, 50)),
    ("uncrop_masks", (MASKS, [0, 0, 30, 20], 20, 30)),
    ("is_box_near_crop_edge", (BOXES, CROP, IMAGE, 10.0)),
]


@pytest.fixture(scope="module")
def metas() -> ModuleType:
    return importlib.import_module(f"{segment_anything().__name__}.utils.amg")


def assert_same(found: Any, expected: Any) -> None:
    assert isinstance(found, type(expected)), (type(found), type(expected))
    if isinstance(expected, tuple | list) and not all(isinstance(each, int | float) for each in expected):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, torch.Tensor | np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    else:
        assert found == expected


@pytest.mark.parametrize(("name", "arguments"), CALLS, ids=lambda value: value if isinstance(value, str) else "")
def test_results_are_metas(name: str, arguments: tuple[Any, ...], metas: ModuleType) -> None:
    assert_same(getattr(amg, name)(*arguments), getattr(metas, name)(*arguments))


def test_every_function_is_there_with_metas_arguments(metas: ModuleType) -> None:
    for name, theirs in inspect.getmembers(metas, inspect.isfunction):
        if theirs.__module__ == metas.__name__:
            assert [*inspect.signature(getattr(amg, name)).parameters] == [*inspect.signature(theirs).parameters], name


def columns() -> dict[str, Any]:
    return {"masks": MASKS.clone(), "rows": np.arange(6), "names": [*"abcdef"]}


@pytest.mark.parametrize(
    "keep", [torch.tensor([4, 1]), torch.tensor([True, False, True, False, False, True])], ids=["indices", "bool"]
)
def test_mask_data_is_metas(keep: torch.Tensor, metas: ModuleType) -> None:
    results = []
    for module in (amg, metas):
        data = module.MaskData()
        data.cat(module.MaskData(**columns()))
        data.cat(module.MaskData(**columns()))
        data["more"] = torch.arange(12)
        del data["rows"]
        data.filter(torch.cat([keep, keep]))
        data.to_numpy()
        results.append(dict(data.items()))
    assert results[0].keys() == results[1].keys()
    for name, expected in results[1].items():
        assert_same(results[0][name], expected)
    with pytest.raises(AssertionError, match="MaskData takes lists, arrays and tensors, not int"):
        amg.MaskData(masks=3)


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(AssertionError, match="mode must be"):
        amg.remove_small_regions(MASKS[0].numpy(), 3, "all")
    with pytest.raises(AssertionError, match="one length"):
        next(amg.batch_iterator(2, [1, 2], [1]))
    assert list(amg.batch_iterator(2, [1, 2, 3], "abc")) == [[[1, 2], "ab"], [[3], "c"]]
