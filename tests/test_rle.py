"""COCO run-length encoding, against pycocotools."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from samrt import rle
from samrt.errors import InputError
from samrt.images import limits
from samrt.rle import Expanded, area_and_box, bounding_box, decode, encode

# pycocotools' arrays do not know numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _random(shape: tuple[int, int], share: float) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random(shape) < share


def _disc() -> np.ndarray:
    rows, columns = np.ogrid[:700, :900]
    return (rows - 300) ** 2 + (columns - 500) ** 2 < 250**2


MASKS = {
    "empty": np.zeros((5, 7), bool),
    "full": np.ones((5, 7), bool),
    "one pixel, 0": np.zeros((1, 1), bool),
    "one pixel, 1": np.ones((1, 1), bool),
    "row": _random((1, 50), 0.5),
    "column": _random((50, 1), 0.5),
    "first pixel set": np.arange(12).reshape(3, 4) == 0,
    "last pixel set": np.arange(12).reshape(3, 4) == 11,
    "noise": _random((61, 47), 0.5),
    "sparse noise": _random((211, 173), 0.02),
    "dense noise": _random((173, 211), 0.98),
    "disc": _disc(),
    "long runs": np.repeat([False, True, False], [2_000_000, 1, 999_999])[: 1500 * 2000].reshape(1500, 2000),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_same_string_as_pycocotools_and_back(mask: np.ndarray) -> None:
    ours = encode(mask)
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))

    assert ours == {"size": list(mask.shape), "counts": theirs["counts"].decode()}
    np.testing.assert_array_equal(coco.decode(ours), mask)
    np.testing.assert_array_equal(decode(theirs), mask)
    assert bounding_box(mask) == tuple(coco.toBbox(ours))


def test_survives_json_and_decodes_to_contiguous_bool() -> None:
    mask = MASKS["noise"]
    decoded = decode(json.loads(json.dumps(encode(mask))))

    assert decoded.dtype == np.bool_
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, mask)


def test_encodes_views_of_any_memory_order() -> None:
    mask = _random((40, 60), 0.3)
    for view in (mask.T, mask[::2, ::-3], np.asfortranarray(mask)):
        np.testing.assert_array_equal(coco.decode(encode(view)), view)


@pytest.mark.parametrize("mask", [np.zeros((2, 3), np.uint8), np.zeros((1, 2, 3), bool), np.zeros(4, bool)])
def test_refuses_what_is_not_a_mask(mask: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"must be bool \[H, W\]"):
        encode(mask)


@pytest.mark.parametrize(
    "damage",
    [
        {"counts": encode(MASKS["noise"])["counts"][:-1]},
        {"counts": ""},
        {"counts": "z!"},
        {"counts": "\u00e9"},
        {"counts": "P"},  # a number that goes on, then the end
        {"counts": "P" * 20 + "0"},
        {"counts": "O"},  # -1
        {"counts": [3, 4]},
        {"counts": None},
        {"size": [61]},
        {"size": [61, 48]},
        {"size": [-61, -47]},
        {"size": [61.0, 47]},
        {"size": [10**6, 10**6]},
        {"size": None},
    ],
    ids=str,
)
def test_refuses_a_damaged_part(damage: dict[str, object]) -> None:
    with pytest.raises(InputError, match="RLE"):
        decode({**encode(MASKS["noise"]), **damage})


@pytest.mark.parametrize(
    ("counts", "error"),
    [
        ("O2", "do not fill"),  # -1 and 2: their sum is right
        ("q", "foreign characters"),  # a bit beyond the six of a character
        ("QPPPPPP0", "cut short or holds foreign"),  # 1 with more zeros than a 32-bit number can have
    ],
)
def test_refuses_what_would_fill_one_pixel_by_luck(counts: str, error: str) -> None:
    assert decode({"size": [1, 1], "counts": "1"}).sum() == 0
    with pytest.raises(InputError, match=error):
        decode({"size": [1, 1], "counts": counts})


@pytest.mark.parametrize("size", [[2**14, 2**14 + 1], [2**32, 0], [0, 2**63]], ids=str)
def test_a_few_characters_take_no_memory_that_nobody_asked_for(size: list[int]) -> None:
    assert rle.MAX_PIXELS == limits.MAX_PIXELS
    mask: dict[str, object] = {"size": size, "counts": rle._to_string(np.array([size[0] * size[1]]))}
    with pytest.raises(InputError, match="larger than max_pixels=268,435,456; raise that"):
        decode(mask)
    assert area_and_box(mask) == (0, (0, 0, 0, 0))


def test_a_limit_of_ones_own() -> None:
    small = encode(np.ones((3, 4), bool))
    assert decode(small, max_pixels=12).all()
    with pytest.raises(InputError, match="3 x 4 pixels is larger than max_pixels=11"):
        decode(small, max_pixels=11)


def test_a_size_that_is_nested_deep_is_refused() -> None:
    size: list[object] = []
    for _ in range(5000):
        size = [size]
    with pytest.raises(InputError, match=r"must be \[height, width\] in pixels, got \[\[\["):
        decode({"size": size, "counts": "0"})


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(7, 5), (1, 9), (9, 1), (40, 30)])
def test_area_and_box_are_those_of_the_expanded_mask(shape: tuple[int, int], density: float) -> None:
    for seed in range(5):
        mask = np.random.default_rng(seed).random(shape) < density
        assert area_and_box(encode(mask)) == (mask.sum(), bounding_box(mask))


def test_area_and_box_of_runs_over_several_columns_and_of_none() -> None:
    for part in (np.s_[2:, 1:2], np.s_[:, 1:4], np.s_[:2, :], np.s_[:0], np.s_[-1:, -1:]):
        mask = np.zeros((6, 5), bool)
        mask[part] = True
        assert area_and_box(encode(mask)) == (mask.sum(), bounding_box(mask))
    with pytest.raises(InputError, match="do not fill"):
        area_and_box({"size": [2, 2], "counts": "5"})


def test_expanded_masks_are_a_sequence() -> None:
    masks = np.random.default_rng(0).random((3, 6, 5)) < 0.5
    np.testing.assert_array_equal(np.stack(Expanded([encode(mask) for mask in masks])), masks)


@pytest.mark.parametrize("given", [None, 5, "x", [], [[True]], object()])
def test_other_types_are_errors_of_samrt(given: Any) -> None:
    for call in (encode, decode, area_and_box, bounding_box):
        with pytest.raises(InputError, match=r"a mask must be|an RLE must be"):
            call(given)


def test_no_mask_is_larger_than_the_format_counts() -> None:
    for size in ([2**16, 2**16], [10**200, 10**200]):
        with pytest.raises(InputError, match="more than the format counts, 4,294,967,295"):
            decode({"size": size, "counts": "0"})


def test_runs_whose_sum_overflows_are_refused() -> None:
    """They are 2^64 + 12 pixels, and the mask has 12."""
    runs = np.full(1 + 2 * 65535, 2**32)
    runs[0] += 12
    runs[1::2] = 2**33 * np.arange(1, 65536)
    assert runs.sum() == 12
    with pytest.raises(InputError, match="do not fill 3 x 4 pixels"):
        area_and_box({"size": [3, 4], "counts": rle._to_string(runs)})
