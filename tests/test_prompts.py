"""Prompts are checked at the border and packed as Meta's prompt encoder packs them."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from oracle import segment_anything

from samrt.embedding import Embedding
from samrt.errors import InputError
from samrt.prompts import Prompts, decoder_inputs, fit_geometry, read_prompts, to_input_frame

L = 16
POINTS = [[10.0, 20.0], [30.0, 5.0]]
LABELS = [1, 0]
BOX = [5.0, 6.0, 30.0, 40.0]
MASK = np.random.default_rng(0).standard_normal((1, L, L)).astype(np.float32)
SIZE = (48, 64)


def _read(point_coords: Any = None, point_labels: Any = None, box: Any = None, mask_input: Any = None) -> Prompts:
    return read_prompts(point_coords, point_labels, box, mask_input, L)


def test_one_prompt_and_a_batch_differ_only_by_the_first_axis() -> None:
    one = _read(POINTS, LABELS, BOX, MASK)
    batch = _read([POINTS], [LABELS], [BOX], MASK[None])
    assert (one.batched, batch.batched) == (False, True)
    one_inputs, batch_inputs = decoder_inputs(one, L), decoder_inputs(batch, L)
    for name, array in one_inputs.items():
        np.testing.assert_array_equal(array, batch_inputs[name])


@pytest.mark.parametrize(
    ("kinds", "count"),
    [(kinds, count) for kinds in ("p", "b", "m", "pb", "pm", "bm", "pbm") for count in (1, 3)] + [("", 1)],
)
def test_tokens_are_those_of_metas_prompt_encoder(kinds: str, count: int) -> None:
    """Embed our tokens by the contract's words (half a pixel, one embedding per label), compare with Meta's encoder."""
    random = np.random.default_rng(0)
    coords = random.random((count, 4, 2)) * 64 if "p" in kinds else None
    labels = random.integers(-1, 2, (count, 4)) if "p" in kinds else None
    boxes = random.random((count, 4)) * 64 if "b" in kinds else None
    masks = random.standard_normal((count, 1, L, L)).astype(np.float32) if "m" in kinds else None
    segment_anything()
    torch.manual_seed(0)
    encoder = sys.modules["segment_anything.modeling.prompt_encoder"].PromptEncoder(8, (4, 4), (64, 64), 4)

    def tensor(array: Any) -> Any:
        return None if array is None else torch.from_numpy(array).float()

    inputs = decoder_inputs(_read(coords, labels, boxes, masks), L)
    with torch.no_grad():
        sparse, dense = encoder(
            None if coords is None else (tensor(coords), tensor(labels)), tensor(boxes), tensor(masks)
        )
        tokens = torch.from_numpy(inputs["point_coords"]) + 0.5
        kind = torch.from_numpy(inputs["point_labels"])[..., None]
        expected = encoder.pe_layer.forward_with_coords(tokens, (64, 64)) * (kind != -1)
        for label, weight in enumerate(encoder.point_embeddings):
            expected += weight.weight * (kind == label)
        expected += encoder.not_a_point_embed.weight * (kind == -1)
        has_mask = torch.from_numpy(inputs["has_mask_input"])[:, None, None, None]
        from_mask = encoder.mask_downscaling(torch.from_numpy(inputs["mask_input"].copy()))
        expected_dense = has_mask * from_mask + (1 - has_mask) * encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    assert inputs["point_coords"].dtype == np.float32
    assert inputs["point_labels"].dtype == np.int32
    torch.testing.assert_close(sparse, expected.reshape(sparse.shape))
    torch.testing.assert_close(dense, expected_dense)


def test_mask_alone_has_no_tokens() -> None:
    inputs = decoder_inputs(_read(mask_input=np.stack([MASK] * 2)), L)
    assert inputs["point_coords"].shape == (2, 0, 2)
    assert inputs["point_labels"].shape == (2, 0)
    np.testing.assert_array_equal(inputs["has_mask_input"], np.ones(2, np.float32))


def test_input_frame_scales_each_axis() -> None:
    embedding = Embedding({"image_embeddings": np.zeros((1, 1), np.float32)}, (100, 200), (50, 400), "model")
    prompts = to_input_frame(_read(POINTS, LABELS, BOX), embedding)
    np.testing.assert_array_equal(prompts.point_coords, [[[20, 10], [60, 2.5]]])
    np.testing.assert_array_equal(prompts.boxes, [[10, 3, 60, 20]])
    # A region of 100x50 pixels that fills the same frame: twice as large, and counted from its corner.
    of_region = to_input_frame(_read(POINTS, LABELS, BOX), replace(embedding, region=(4, 3, 104, 53)))
    np.testing.assert_array_equal(of_region.point_coords, [[[24, 17], [104, 2]]])
    np.testing.assert_array_equal(of_region.boxes, [[4, 3, 104, 37]])


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float16, np.float64])
def test_numbers_of_any_type(dtype: Any) -> None:
    prompts = _read(np.array(POINTS, dtype), np.array(LABELS, dtype), np.array(BOX, dtype))
    np.testing.assert_array_equal(prompts.point_coords, [POINTS])
    np.testing.assert_array_equal(prompts.point_labels, [LABELS])
    np.testing.assert_array_equal(prompts.boxes, [BOX])


def test_labels_may_be_bool_and_tensors_are_taken() -> None:
    prompts = _read(torch.tensor(POINTS), [True, False])
    np.testing.assert_array_equal(prompts.point_coords, [POINTS])
    np.testing.assert_array_equal(prompts.point_labels, [LABELS])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"point_coords": POINTS}, "point_coords without point_labels; give both"),
        ({"point_labels": LABELS}, "point_labels without point_coords; give both"),
        ({"point_coords": POINTS, "point_labels": []}, "point_coords without point_labels; give both"),
        ({"point_coords": [], "point_labels": LABELS}, "point_labels without point_coords; give both"),
        ({"point_coords": POINTS, "point_labels": [1]}, r"\[2, 2\] and point_labels \[1\] differ in count; give one"),
        ({"point_coords": [POINTS], "point_labels": [[1]]}, r"\[1, 2, 2\] and point_labels \[1, 1\] differ"),
        ({"point_coords": [1, 2], "point_labels": [1]}, r"point_coords must have the shape \[N, 2\] or \[B, N, 2\]"),
        ({"point_coords": [[1, 2, 3]], "point_labels": [1]}, r"not \[1, 3\]"),
        ({"point_coords": POINTS, "point_labels": 1}, r"point_labels must have the shape \[N\]"),
        ({"point_coords": POINTS, "point_labels": [1, 2]}, "must be 1 .* use `box` for a box"),
        ({"point_coords": POINTS, "point_labels": [1, 0.5]}, "point_labels must be 1"),
        ({"point_coords": [[np.nan, 1]], "point_labels": [1]}, "point_coords contains NaN or infinity"),
        ({"point_coords": [[1, np.inf]], "point_labels": [1]}, "point_coords contains NaN or infinity"),
        ({"point_coords": POINTS, "point_labels": [1, np.nan]}, "point_labels contains NaN"),
        ({"point_coords": [["a", "b"]], "point_labels": [1]}, "point_coords must be numbers, not <U1"),
        ({"point_coords": [[None, 1]], "point_labels": [1]}, "must be numbers, not object"),
        ({"point_coords": [[1, 2], [3]], "point_labels": [1, 1]}, "cannot be turned into a numpy array"),
        ({"box": [1, 2, 3]}, r"box must have the shape \[4\] or \[B, 4\], not \[3\]"),
        ({"box": [[[1, 2, 3, 4]]]}, r"not \[1, 1, 4\]"),
        ({"point_coords": [[1e39, 1]], "point_labels": [1]}, "numbers too large for float32"),
        ({"mask_input": np.full((1, L, L), -1e300)}, "numbers too large for float32"),
        ({"box": [1, 2, 3, np.nan]}, "box contains NaN"),
        ({"box": [True, True, True, True]}, "box must be numbers, not bool"),
        ({"mask_input": MASK[0]}, r"mask_input must have the shape \[1, 16, 16\] or \[B, 1, 16, 16\], not \[16, 16\]"),
        ({"mask_input": MASK[:, :8, :8]}, r"not \[1, 8, 8\]"),
        ({"mask_input": MASK > 0}, "mask_input must be numbers, not bool"),
        ({"mask_input": np.full((1, L, L), np.nan)}, "mask_input contains NaN"),
        ({"point_coords": POINTS, "point_labels": [LABELS]}, "mixed: point_coords is one prompt, point_labels is a b"),
        ({"point_coords": POINTS, "point_labels": LABELS, "box": [BOX]}, "mixed: .*box is a batch; give all"),
        ({"box": BOX, "mask_input": MASK[None]}, "mixed: box is one prompt, mask_input is a batch"),
        ({"box": [BOX] * 2, "mask_input": np.stack([MASK] * 3)}, r"batch sizes \[2, 3\] differ"),
        ({"box": np.zeros((0, 4))}, "batch of prompts is empty"),
    ],
)
def test_malformed_prompts_are_refused(prompt: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _read(**prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        {"point_coords": [[0, 0], [64, 48]], "point_labels": [1, 0]},
        {"box": [0, 0, 64, 48]},
        {"mask_input": MASK},
        {"point_coords": [[[1, 1], [900, -900]]], "point_labels": [[1, -1]]},
        {"point_coords": [[9, 9]], "point_labels": [-1], "box": BOX},
        {"point_coords": np.zeros((0, 2)), "point_labels": np.zeros(0), "mask_input": MASK},
    ],
)
def test_geometry_within_the_image(prompt: dict[str, Any]) -> None:
    fit_geometry(_read(**prompt), SIZE)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "prompt is empty.*give each a point"),
        ({"point_coords": np.zeros((0, 2)), "point_labels": np.zeros(0)}, "prompt is empty"),
        ({"point_coords": [[1, 1]], "point_labels": [-1]}, "prompt is empty"),
        ({"point_coords": [[[1, 1]], [[2, 2]]], "point_labels": [[1], [-1]]}, "or one of the batch is"),
        ({"point_coords": [[1, 1], [65.5, 2]], "point_labels": [1, 1]}, r"\(65.5, 2\) lies outside the image of 64x48"),
        ({"point_coords": [[1, 49.1]], "point_labels": [0]}, r"the point \(1, 49.1\) lies outside"),
        ({"point_coords": [[[1, 1]], [[-1.5, 3]]], "point_labels": [[1], [1]]}, r"\(-1.5, 3\) at index 1 of 2 lies"),
        ({"point_coords": [[-2, 3]], "point_labels": [1]}, "give .* in pixels of the original image"),
        ({"box": [0, 0, 66, 48]}, r"box \[0, 0, 66, 48\] reaches outside .*; have it cut off there with clip=True"),
        ({"box": [-1.1, 0, 5, 5]}, "reaches outside"),
        ({"box": [[1, 1, 9, 9], [1, 1, 9, 50]]}, r"box \[1, 1, 9, 50\] at index 1 of 2 reaches outside"),
        ({"box": [64, 1, 64.5, 9]}, "lies outside the image .*; leave it out"),
        ({"box": [70, 1, 80, 9]}, "lies outside the image .*; leave it out"),
        ({"box": [30, 6, 5, 40]}, r"box \[30, 6, 5, 40\] is inverted; order it"),
        ({"box": [5, 40, 30, 6]}, "is inverted"),
        ({"box": [5, 6, 5, 40]}, "has no area"),
        ({"box": [5, 6, 30, 6]}, "has no area"),
        ({"point_coords": [[99, 99]], "point_labels": [1], "box": BOX}, "lies outside"),
    ],
)
def test_geometry_that_is_refused(prompt: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_geometry(_read(**prompt), SIZE)


@pytest.mark.parametrize(
    ("box", "clip", "expected"),
    [
        ([-1, -0.5, 65, 48.25], False, [0, 0, 64, 48]),
        ([[1, 2, 3, 4], [5, 5, 64.0001, 9]], False, [[1, 2, 3, 4], [5, 5, 64, 9]]),
        ([-30, 5, 200, 9], True, [0, 5, 64, 9]),
        ([[1, 2, 3, 4], [-9, -9, 1, 1]], True, [[1, 2, 3, 4], [0, 0, 1, 1]]),
    ],
)
def test_boxes_past_the_edge_are_cut_off_there(box: Any, clip: bool, expected: Any) -> None:
    fitted = fit_geometry(_read(box=box), SIZE, clip=clip)
    np.testing.assert_array_equal(fitted.boxes, np.reshape(expected, (-1, 4)))
    assert fitted.batched == (np.ndim(box) == 2)
    # The same, counted from a region's corner.
    moved = fit_geometry(_read(box=np.add(box, [20, 10, 20, 10])), (100, 200), (20, 10, 84, 58), clip=clip)
    np.testing.assert_array_equal(moved.boxes, np.reshape(np.add(expected, [20, 10, 20, 10]), (-1, 4)))


def test_points_up_to_a_pixel_past_the_edge_lie_on_it() -> None:
    points = [[-1, 5], [64.5, 48.5], [3, 4], [900, -900]]
    fitted = fit_geometry(_read([points], [[1, 0, 1, -1]]), SIZE)
    np.testing.assert_array_equal(fitted.point_coords, [[[0, 5], [64, 48], [3, 4], [900, -900]]])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"box": [-30, 5, -1, 9]}, "lies outside the image .*; leave it out"),
        ({"box": [[1, 1, 2, 2], [64, 1, 99, 9]]}, r"at index 1 of 2 lies outside"),
        ({"box": [70, 5, 60, 9]}, "is inverted"),
        ({"point_coords": [[70, 5]], "point_labels": [1]}, "lies outside"),
    ],
)
def test_clipping_leaves_refusals_where_nothing_is_left(prompt: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_geometry(_read(**prompt), SIZE, clip=True)


@pytest.mark.parametrize("empty", [[], [[]], (), np.zeros((0, 2)), torch.zeros(0, 2), np.zeros(0, object)])
@pytest.mark.parametrize("labels", [None, [], [[]], np.zeros(0, np.int64)])
def test_an_empty_list_is_no_prompt_of_its_kind(empty: Any, labels: Any) -> None:
    for box in (BOX, [BOX] * 3):
        prompts = _read(empty, labels, box)
        assert (prompts.point_coords, prompts.point_labels, prompts.batched) == (None, None, box is not BOX)
        np.testing.assert_array_equal(prompts.boxes, np.reshape(box, (-1, 4)))
    with pytest.raises(InputError, match="prompt is empty"):
        fit_geometry(_read(empty, labels), SIZE)


def test_empty_boxes_and_masks_are_no_prompt_either() -> None:
    prompts = _read(POINTS, LABELS, [], [])
    assert (prompts.boxes, prompts.mask_input) == (None, None)
    assert _read([[], []], [[], []], [BOX] * 2).point_coords is None


def test_large_batches_share_the_memory_of_absent_masks() -> None:
    inputs = decoder_inputs(_read(box=np.tile(BOX, (10_000, 1))), L)
    assert inputs["mask_input"].shape == (10_000, 1, L, L)
    assert inputs["mask_input"].strides == (0, 0, 0, 0)
    assert not inputs["has_mask_input"].any()
