"""`SamPredictor` has Meta's calls, and the results of `Model`."""

from __future__ import annotations

import inspect
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts import geometry
from oracle import segment_anything
from toy_bundle import C, toy_decoder, toy_encoder

import samrt
from samrt.errors import InputError
from samrt.geometry import normalize_and_pad, resize_image, upscale_masks
from samrt.model import Model
from samrt.predictor import SamPredictor

pytest_plugins = ("toy_fixtures",)

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
SIZE, INPUT = (40, 90), (28, 64)
GEOMETRY = geometry(64, 64)
POINTS, LABELS = np.array([[30.0, 20.0], [70.0, 5.0]]), np.array([1, 0])
BOX = np.array([10.0, 5.0, 60.0, 35.0])
MASK = np.random.default_rng(1).standard_normal((1, 64, 64)).astype(np.float32) * 9
PROMPTS: list[dict[str, Any]] = [
    {"point_coords": POINTS, "point_labels": LABELS},
    {"box": BOX},
    {"mask_input": MASK},
    {"point_coords": POINTS, "point_labels": LABELS, "box": BOX, "mask_input": MASK},
]


@pytest.fixture
def predictor(toy_model: Model) -> SamPredictor:
    predictor = SamPredictor(toy_model)
    predictor.set_image(IMAGE)
    return predictor


@pytest.mark.parametrize("name", ["SamPredictor", "ResizeLongestSide"])
def test_calls_are_metas(name: str) -> None:
    """Every public method has Meta's argument names, in Meta's order, with Meta's defaults."""
    segment_anything()
    module = {"SamPredictor": "predictor", "ResizeLongestSide": "utils.transforms"}[name]
    theirs, ours = getattr(sys.modules[f"segment_anything.{module}"], name), getattr(samrt, name)
    methods = {key for key, value in vars(theirs).items() if callable(value) and not key.startswith("_")}
    assert methods
    for method in [*methods, "__init__"]:
        expected = inspect.signature(getattr(theirs, method)).parameters.values()
        found = inspect.signature(getattr(ours, method)).parameters.values()
        assert [(p.name, p.default) for p in found] == [(p.name, p.default) for p in expected], method


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("multimask_output", [True, False])
def test_predict_is_model_predict(
    predictor: SamPredictor, toy_model: Model, prompt: dict[str, Any], multimask_output: bool
) -> None:
    expected = toy_model.predict(toy_model.encode(IMAGE), **prompt, multimask_output=multimask_output)
    masks, scores, low_res = predictor.predict(**prompt, multimask_output=multimask_output)
    np.testing.assert_array_equal(masks, expected.masks)
    np.testing.assert_array_equal(scores, expected.iou_predictions)
    np.testing.assert_array_equal(low_res, expected.low_res_masks)
    count = 3 if multimask_output else 1
    assert (masks.shape, masks.dtype) == ((count, *SIZE), np.bool_)
    assert (scores.shape, scores.dtype) == ((count,), np.float32)
    assert (low_res.shape, low_res.dtype) == ((count, 64, 64), np.float32)


def test_logits(predictor: SamPredictor) -> None:
    logits, _, low_res = predictor.predict(POINTS, LABELS, return_logits=True)
    np.testing.assert_array_equal(logits, upscale_masks(low_res, GEOMETRY, INPUT, SIZE))
    np.testing.assert_array_equal(predictor.predict(POINTS, LABELS)[0], logits > 0)


def test_arguments_are_positional_as_metas(predictor: SamPredictor) -> None:
    masks, _, _ = predictor.predict(POINTS, LABELS, BOX, MASK, False, True)
    assert (masks.shape, masks.dtype) == ((1, *SIZE), np.float32)


def test_no_prompt_at_all_is_accepted(predictor: SamPredictor) -> None:
    _, scores, low_res = predictor.predict()
    expected, expected_scores = toy_decoder(predictor.features.numpy(), np.zeros((1, 0, 2)), np.zeros((1, 0)))
    np.testing.assert_allclose(low_res, expected[0, 1:], atol=1e-4)
    np.testing.assert_allclose(scores, expected_scores[0, 1:], atol=1e-5)
    assert [each.shape for each in predictor.predict_torch(None, None)] == [(1, 3, *SIZE), (1, 3), (1, 3, 64, 64)]


def test_points_outside_and_inverted_boxes_are_accepted(predictor: SamPredictor) -> None:
    outside = np.array([[95.0, -10.0]])
    _, _, low_res = predictor.predict(outside, np.array([1]))
    tokens = np.array([[outside[0] * (64 / 90, 28 / 40), (0, 0)]])
    expected, _ = toy_decoder(predictor.features.numpy(), tokens, np.array([[1, -1]]))
    np.testing.assert_allclose(low_res, expected[0, 1:], atol=1e-4)
    assert predictor.predict(box=BOX[[2, 3, 0, 1]])[0].shape == (3, *SIZE)


def test_box_with_a_first_axis_is_accepted(predictor: SamPredictor) -> None:
    np.testing.assert_array_equal(
        predictor.predict(POINTS, LABELS, BOX[None])[2], predictor.predict(POINTS, LABELS, BOX)[2]
    )


def test_bgr(predictor: SamPredictor, toy_model: Model) -> None:
    other = SamPredictor(toy_model)
    other.set_image(IMAGE[..., ::-1], image_format="BGR")
    np.testing.assert_array_equal(other.features, predictor.features)


def test_state_of_a_set_image(predictor: SamPredictor, toy_model: Model) -> None:
    assert predictor.is_image_set
    assert (predictor.original_size, predictor.input_size) == (SIZE, INPUT)
    assert predictor.model is toy_model
    assert predictor.transform.target_length == 64
    assert str(predictor.device) == "cpu"
    embedding = predictor.get_image_embedding()
    assert (tuple(embedding.shape), embedding.dtype) == ((1, C, 16, 16), torch.float32)
    assert predictor.features is embedding


def test_nothing_works_without_an_image(predictor: SamPredictor) -> None:
    embedding = weakref.ref(predictor.features)
    predictor.reset_image()
    assert embedding() is None
    assert not predictor.is_image_set
    assert predictor.features is None
    for call in (
        lambda: predictor.predict(POINTS, LABELS),
        lambda: predictor.predict_torch(None, None),
        predictor.get_image_embedding,
    ):
        with pytest.raises(RuntimeError, match=r"image must be set with .set_image\(...\) before"):
            call()


@pytest.mark.parametrize("kind", [AssertionError, ValueError])
def test_wrong_format_is_the_error_that_metas_callers_catch(predictor: SamPredictor, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="image_format must be one of"):
        predictor.set_image(IMAGE, "HSV")
    assert predictor.is_image_set


def test_failed_encoder_leaves_no_image(predictor: SamPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise samrt.BackendError("out of memory")

    monkeypatch.setattr(predictor.model._session.encoder, "run", fail)
    with pytest.raises(samrt.BackendError):
        predictor.set_image(IMAGE)
    assert not predictor.is_image_set


def test_earlier_embedding_is_put_back_as_with_metas(predictor: SamPredictor) -> None:
    """Code that keeps embeddings sets these attributes by hand."""
    expected = predictor.predict(POINTS, LABELS)[0]
    kept = predictor.features, predictor.original_size, predictor.input_size
    predictor.set_image(np.zeros((9, 9, 3), np.uint8))
    predictor.features, predictor.original_size, predictor.input_size = kept
    np.testing.assert_array_equal(predictor.predict(POINTS, LABELS)[0], expected)


def _batch(kind: str) -> dict[str, Any]:
    """Two prompts in pixels of the resized image."""
    transform = samrt.ResizeLongestSide(64)
    points = transform.apply_coords(np.stack([POINTS, POINTS[::-1]]), SIZE)
    boxes = transform.apply_boxes(np.stack([BOX, BOX + 1]), SIZE)
    batch = {
        "point_coords": points,
        "point_labels": np.stack([LABELS, LABELS]),
        "boxes": boxes,
        "mask_input": np.stack([MASK, -MASK]),
    }
    return {name: torch.from_numpy(array) for name, array in batch.items()} if kind == "torch" else batch


def test_predict_torch_takes_the_resized_frame(predictor: SamPredictor, toy_model: Model) -> None:
    expected = toy_model.predict(
        toy_model.encode(IMAGE),
        np.stack([POINTS, POINTS[::-1]]),
        np.stack([LABELS, LABELS]),
        np.stack([BOX, BOX + 1]),
        np.stack([MASK, -MASK]),
    )
    for kind in ("numpy", "torch"):
        results = predictor.predict_torch(**_batch(kind))
        assert all(isinstance(each, torch.Tensor if kind == "torch" else np.ndarray) for each in results)
        masks, scores, low_res = map(np.asarray, results)
        np.testing.assert_array_equal(masks, expected.masks)
        np.testing.assert_array_equal(scores, expected.iou_predictions)
        np.testing.assert_array_equal(low_res, expected.low_res_masks)


def test_predict_torch_answers_one_tensor_with_tensors(predictor: SamPredictor) -> None:
    boxes = predictor.transform.apply_boxes_torch(torch.from_numpy(BOX[None]), SIZE)
    masks, scores, low_res = predictor.predict_torch(None, None, boxes=boxes, multimask_output=False)
    assert (masks.dtype, scores.dtype, low_res.dtype) == (torch.bool, torch.float32, torch.float32)
    assert tuple(masks.shape) == (1, 1, *SIZE)
    np.testing.assert_array_equal(masks[0].numpy(), predictor.predict(box=BOX, multimask_output=False)[0])


def test_predict_torch_needs_batches_and_predict_does_not(predictor: SamPredictor) -> None:
    with pytest.raises(InputError, match="predict_torch takes batches"):
        predictor.predict_torch(POINTS, LABELS)
    with pytest.raises(InputError, match="predict takes one prompt; use predict_torch"):
        predictor.predict(box=np.stack([BOX, BOX]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64, torch.float64, torch.float16])
def test_set_torch_image_is_set_image(predictor: SamPredictor, toy_model: Model, dtype: torch.dtype) -> None:
    resized = resize_image(IMAGE, GEOMETRY)
    other = SamPredictor(toy_model)
    other.set_torch_image(torch.from_numpy(resized).permute(2, 0, 1)[None].to(dtype), SIZE)
    assert isinstance(other.get_image_embedding(), torch.Tensor)
    np.testing.assert_array_equal(other.features.numpy(), predictor.features)
    assert (other.original_size, other.input_size) == (SIZE, INPUT)
    np.testing.assert_array_equal(other.predict(POINTS, LABELS)[0], predictor.predict(POINTS, LABELS)[0])
    assert isinstance(other.predict_torch(None, None)[0], torch.Tensor)
    expected = predictor.features
    predictor.set_torch_image(resized.transpose(2, 0, 1)[None], SIZE)
    assert torch.equal(predictor.features, expected)


def test_set_torch_image_keeps_fractions(predictor: SamPredictor) -> None:
    pixels = resize_image(IMAGE, GEOMETRY).astype(np.float32) + np.float32(0.3)
    predictor.set_torch_image(torch.from_numpy(pixels).permute(2, 0, 1)[None], SIZE)
    expected = toy_encoder(normalize_and_pad(pixels, GEOMETRY))
    np.testing.assert_allclose(predictor.features.numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("shape", [(3, 28, 64), (1, 4, 28, 64), (1, 3, 28, 60), (2, 3, 28, 64), (1, 3, 0, 64)])
def test_set_torch_image_of_another_shape(predictor: SamPredictor, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"needs \[1, 3, h, w\] with the longer side 64, not"):
        predictor.set_torch_image(torch.zeros(shape), SIZE)
    assert predictor.is_image_set


def test_predictor_comes_from_samrt(toy_bundle: Path) -> None:
    assert samrt.SamPredictor is SamPredictor
    predictor = samrt.SamPredictor(samrt.load(toy_bundle))
    predictor.set_image(IMAGE)
    assert predictor.predict(POINTS, LABELS)[0].any()


def test_set_torch_image_takes_bfloat16_and_refuses_what_is_not_finite(predictor: SamPredictor) -> None:
    pixels = torch.full((1, 3, 28, 64), 128.0)
    predictor.set_torch_image(pixels, SIZE)
    expected = predictor.features
    predictor.set_torch_image(pixels.bfloat16(), SIZE)
    assert torch.equal(predictor.features, expected)
    pixels[0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="the image contains NaN or infinity"):
        predictor.set_torch_image(pixels, SIZE)
    assert predictor.is_image_set


def test_labels_without_points_are_ignored(predictor: SamPredictor) -> None:
    np.testing.assert_array_equal(predictor.predict(None, LABELS, BOX)[2], predictor.predict(box=BOX)[2])
    boxes = predictor.transform.apply_boxes(BOX, SIZE)
    np.testing.assert_array_equal(
        predictor.predict_torch(None, LABELS[None], boxes)[2], predictor.predict_torch(None, None, boxes)[2]
    )


def test_predict_torch_takes_boxes_with_an_axis_more_and_one_mask_for_all(predictor: SamPredictor) -> None:
    boxes = _batch("torch")["boxes"]
    mask = torch.from_numpy(MASK[None])
    expected = predictor.predict_torch(None, None, boxes, mask.repeat(2, 1, 1, 1))
    found = predictor.predict_torch(None, None, boxes[:, None], mask)
    assert len(found[2]) == 2
    assert torch.equal(found[2], expected[2])


def test_bool_masks_are_zeros_and_ones(predictor: SamPredictor) -> None:
    expected = predictor.predict(box=BOX, mask_input=(MASK > 0).astype(np.float32))[2]
    np.testing.assert_array_equal(predictor.predict(box=BOX, mask_input=MASK > 0)[2], expected)
    boxes = torch.from_numpy(predictor.transform.apply_boxes(BOX, SIZE))
    found = predictor.predict_torch(None, None, boxes, torch.from_numpy(MASK[None] > 0))[2]
    np.testing.assert_array_equal(found[0].numpy(), expected)


def test_features_are_tensors_where_torch_is_loaded(toy_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.delitem(sys.modules, "torch")
        plain = SamPredictor(toy_model)
        plain.set_image(IMAGE)
        assert isinstance(plain.get_image_embedding(), np.ndarray)
        assert isinstance(plain.predict_torch(None, None)[0], np.ndarray)
    predictor = SamPredictor(toy_model)
    predictor.set_image(IMAGE)
    assert isinstance(predictor.features, torch.Tensor)
    np.testing.assert_array_equal(predictor.features.cpu().numpy(), plain.features)
    assert isinstance(predictor.predict_torch(None, None)[0], torch.Tensor)


def test_features_may_be_changed_in_place(predictor: SamPredictor) -> None:
    expected = predictor.predict(POINTS, LABELS)[2]
    predictor.features += 1
    assert not np.array_equal(predictor.predict(POINTS, LABELS)[2], expected)
    predictor.features = predictor.features - 1
    np.testing.assert_allclose(predictor.predict(POINTS, LABELS)[2], expected, atol=1e-4)


def test_features_of_another_shape_can_be_looked_at_but_not_predicted_with(predictor: SamPredictor) -> None:
    predictor.features = predictor.features[0]
    assert predictor.get_image_embedding().ndim == 3
    with pytest.raises(InputError, match="the feature image_embeddings"):
        predictor.predict(POINTS, LABELS)


def test_apply_image_torch_resizes_with_torch(predictor: SamPredictor) -> None:
    image = torch.from_numpy(IMAGE).permute(2, 0, 1)[None].float()
    resized = predictor.transform.apply_image_torch(image)
    expected = torch.nn.functional.interpolate(image, INPUT, mode="bilinear", align_corners=False, antialias=True)
    assert torch.equal(resized, expected)
    predictor.set_torch_image(resized, SIZE)
    assert predictor.input_size == INPUT


class Subclass(torch.Tensor):
    """As torchvision's tensors are."""


def test_subclasses_of_tensors_are_tensors(predictor: SamPredictor) -> None:
    boxes = predictor.transform.apply_boxes_torch(torch.from_numpy(BOX[None]), SIZE)
    found = predictor.predict_torch(None, None, boxes.as_subclass(Subclass))
    assert all(isinstance(each, torch.Tensor) for each in found)


def test_prompts_in_the_frame_of_metas_models_are_refused(predictor: SamPredictor) -> None:
    metas = samrt.ResizeLongestSide(1024)
    for kind in ("point_coords", "boxes"):
        batch: dict[str, Any] = {"point_coords": None, "point_labels": None}
        moved = metas.apply_coords(POINTS[None], SIZE) if kind == "point_coords" else metas.apply_boxes(BOX, SIZE)
        batch |= {kind: moved} | ({"point_labels": LABELS[None]} if kind == "point_coords" else {})
        with pytest.raises(InputError, match=r"this model's frame has 64 pixels.*Meta's models have 1024"):
            predictor.predict_torch(**batch)


def test_one_mask_input_for_all_boxes_beside_empty_points(predictor: SamPredictor) -> None:
    predictor.set_image(IMAGE)
    side = predictor.model.geometry.low_res_side
    boxes, mask = np.array([[1, 1, 30, 30], [5, 5, 60, 30]]), np.ones((1, 1, side, side), np.float32)
    expected = predictor.predict_torch(None, None, boxes, mask)
    for shape in ((0,), (0, 2), (2, 0, 2)):
        found = predictor.predict_torch(np.zeros(shape), np.zeros(shape[:2] if len(shape) > 2 else 0), boxes, mask)
        for one, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, wanted)
