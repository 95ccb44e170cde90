"""Images and prompts to masks through a toy bundle whose mathematics is repeated in NumPy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from contracts import MEAN_STD, geometry
from toy_bundle import C, rewrite_manifest, toy_decoder, toy_encoder, write_toy_bundle

import samrt
from samrt.backends.onnxruntime import OnnxRuntimeEngine
from samrt.bundle.contract import MaskOutputs, Normalization
from samrt.errors import BackendError, InputError
from samrt.geometry import normalize_and_pad, resize_image, upscale_masks
from samrt.model import Model
from samrt.rle import decode
from samrt.scribble import STROKE_LOGIT, Scribble

pytest_plugins = ("toy_fixtures",)

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
SIZE, INPUT = (40, 90), (28, 64)
GEOMETRY = geometry(64, 64)
SCALE = np.array([64 / 90, 28 / 40])
POINTS, LABELS = [[30.0, 20.0], [70.0, 5.0]], [1, 0]
BOX = [10.0, 5.0, 60.0, 35.0]
PROMPTS_PER_CALL = OnnxRuntimeEngine.max_lengths["prompts"]


@pytest.fixture(scope="module")
def embedding(toy_model: Model) -> samrt.Embedding:
    return toy_model.encode(IMAGE)


def feature(embedding: samrt.Embedding) -> np.ndarray:
    """The toy model's only one."""
    (name,) = embedding.features
    assert name == "image_embeddings"
    return np.asarray(embedding.features[name])


def _tokens(points: Any = (), labels: Any = (), box: Any = ()) -> tuple[np.ndarray, np.ndarray]:
    """What the decoder should be given for one prompt."""
    coords = [np.array(point) * SCALE for point in points]
    kinds = list(labels)
    if len(points) and not len(box):
        coords.append(np.zeros(2))
        kinds.append(-1)
    if len(box):
        coords += [np.array(box[:2]) * SCALE, np.array(box[2:]) * SCALE]
        kinds += [2, 3]
    return np.array(coords).reshape(1, -1, 2), np.array(kinds).reshape(1, -1)


@pytest.mark.parametrize("normalization", [MEAN_STD, Normalization("min_max")])
@pytest.mark.parametrize("size", [(40, 90), (1, 1), (200, 3), (64, 64)])
def test_encode(tmp_path: Path, normalization: Normalization, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    with samrt.load(write_toy_bundle(tmp_path / "b", normalization=normalization)) as model:
        embedding = model.encode(image)
    frames = geometry(64, normalization=normalization)
    resized = resize_image(image, frames)
    expected = toy_encoder(normalize_and_pad(resized, frames))
    assert feature(embedding).shape == (1, C, 16, 16)
    np.testing.assert_allclose(feature(embedding), expected, atol=1e-5)
    assert embedding.original_size == size
    assert embedding.input_size == resized.shape[:2]
    assert embedding.model_id == "ab" * 8 + "@64"


def test_all_kinds_of_images_encode_alike(toy_model: Model, embedding: samrt.Embedding, tmp_path: Path) -> None:
    PIL.Image.fromarray(IMAGE).save(tmp_path / "a.png")
    for other in (
        toy_model.encode(tmp_path / "a.png"),
        toy_model.encode(PIL.Image.fromarray(IMAGE)),
        toy_model.encode(IMAGE[..., ::-1], "BGR"),
        toy_model.encode(IMAGE / 255),
    ):
        np.testing.assert_array_equal(feature(other), feature(embedding))
    with pytest.raises(InputError, match="image_format"):
        toy_model.encode(IMAGE, "HSV")


@pytest.mark.parametrize("multimask_output", [True, False])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("given", [(POINTS, LABELS, ()), ((), (), BOX), (POINTS, LABELS, BOX)])
def test_predict(toy_model: Model, embedding: samrt.Embedding, given: Any, mask: bool, multimask_output: bool) -> None:
    points, labels, box = given
    mask_input = np.random.default_rng(1).standard_normal((1, 64, 64)).astype(np.float32) * 9 if mask else None
    result = toy_model.predict(
        embedding, points or None, labels or None, box or None, mask_input, multimask_output=multimask_output
    )
    masks, scores = toy_decoder(feature(embedding), *_tokens(points, labels, box), mask_input)
    kept = slice(1, 4) if multimask_output else slice(0, 1)
    np.testing.assert_allclose(result.low_res_masks, masks[0, kept], atol=1e-4)
    np.testing.assert_allclose(result.iou_predictions, scores[0, kept], atol=1e-5)
    upscaled = upscale_masks(masks[0, kept], GEOMETRY, INPUT, SIZE)
    assert result.masks.dtype == np.bool_
    assert result.masks.shape == (3 if multimask_output else 1, 40, 90)
    assert 0 < result.masks.mean() < 1
    decided = np.abs(upscaled) > 1e-3
    np.testing.assert_array_equal(result.masks[decided], (upscaled > 0)[decided])


def test_mask_alone_is_a_prompt(toy_model: Model, embedding: samrt.Embedding) -> None:
    mask_input = np.full((1, 64, 64), 4, np.float32)
    result = toy_model.predict(embedding, mask_input=mask_input)
    masks, scores = toy_decoder(feature(embedding), *_tokens(), mask_input)
    np.testing.assert_allclose(result.low_res_masks, masks[0, 1:], atol=1e-4)
    np.testing.assert_allclose(result.iou_predictions, scores[0, 1:], atol=1e-5)


def test_logits_are_those_behind_the_masks(toy_model: Model, embedding: samrt.Embedding) -> None:
    logits = toy_model.predict(embedding, POINTS, LABELS, return_logits=True)
    assert logits.masks.dtype == np.float32
    np.testing.assert_array_equal(logits.masks > 0, toy_model.predict(embedding, POINTS, LABELS).masks)
    np.testing.assert_array_equal(logits.masks, upscale_masks(logits.low_res_masks, GEOMETRY, INPUT, SIZE))


def test_mask_threshold_of_the_manifest_counts(own_bundle: Path) -> None:
    rewrite_manifest(own_bundle, masks=MaskOutputs(threshold=1.5))
    with samrt.load(own_bundle) as model:
        embedding = model.encode(IMAGE)
        logits = model.predict(embedding, POINTS, LABELS, return_logits=True).masks
        masks = model.predict(embedding, POINTS, LABELS).masks
    np.testing.assert_array_equal(masks, logits > 1.5)
    assert (masks != (logits > 0)).any()


@pytest.mark.parametrize("count", [1, PROMPTS_PER_CALL, 2 * PROMPTS_PER_CALL + 1])
def test_batch_is_its_prompts_one_by_one(toy_model: Model, embedding: samrt.Embedding, count: int) -> None:
    random = np.random.default_rng(2)
    points = random.random((count, 3, 2)) * (90, 40)
    labels = random.integers(0, 2, (count, 3))
    boxes = np.sort(random.random((count, 2, 2)) * (90, 40), axis=1).reshape(count, 4)
    masks = random.standard_normal((count, 1, 64, 64)).astype(np.float32)
    batch = toy_model.predict(embedding, points, labels, boxes, masks)
    assert batch.masks.shape == (count, 3, 40, 90)
    for index in range(count):
        one = toy_model.predict(embedding, points[index], labels[index], boxes[index], masks[index])
        np.testing.assert_array_equal(batch.masks[index], one.masks)
        np.testing.assert_allclose(batch.low_res_masks[index], one.low_res_masks, atol=1e-5)
        np.testing.assert_allclose(batch.iou_predictions[index], one.iou_predictions, atol=1e-6)


@pytest.mark.parametrize("multimask_output", [True, False])
def test_run_lengths_are_those_of_the_masks(
    toy_model: Model, embedding: samrt.Embedding, multimask_output: bool
) -> None:
    for given in ({"box": [BOX, [-3, 1, 95, 30]]}, {"box": BOX}, {"scribble": Scribble([[[5, 5], [9, 9]]])}):
        prompts = toy_model.prompts_for(embedding, **given, clip=True, multimask_output=multimask_output)
        found = toy_model.decoder.predict_rle(embedding, prompts, multimask_output)
        expected = toy_model.predict(embedding, **given, clip=True, multimask_output=multimask_output)
        np.testing.assert_array_equal(np.vectorize(decode, signature="()->(h,w)")(found.masks), expected.masks)
        np.testing.assert_array_equal(found.iou_predictions, expected.iou_predictions)
        np.testing.assert_array_equal(found.low_res_masks, expected.low_res_masks)


def test_boxes_past_the_edge(toy_model: Model, embedding: samrt.Embedding) -> None:
    height, width = IMAGE.shape[:2]
    edge = toy_model.predict(embedding, box=[0, 0, width, height])
    for box, clip in (([-0.5, 0, width + 0.9, height], False), ([-9, -9, width + 9, height + 9], True)):
        np.testing.assert_array_equal(toy_model.predict(embedding, box=box, clip=clip).masks, edge.masks)
    with pytest.raises(InputError, match=r"at index 1 of 2 reaches outside .* with clip=True"):
        toy_model.predict(embedding, box=[BOX, [-9, 0, 5, 5]])


def test_padding_evens_out_a_batch(toy_model: Model, embedding: samrt.Embedding) -> None:
    batch = toy_model.predict(embedding, [POINTS, [POINTS[0], [0, 0]]], [LABELS, [1, -1]])
    one = toy_model.predict(embedding, POINTS[:1], LABELS[:1])
    np.testing.assert_allclose(batch.low_res_masks[1], one.low_res_masks, atol=1e-5)


def test_large_batches_reach_the_decoder_in_pieces(
    toy_model: Model, embedding: samrt.Embedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    run = toy_model._session.decoder.run

    def counting(inputs: Any) -> Any:
        sizes.append(len(inputs["point_coords"]))
        return run(inputs)

    monkeypatch.setattr(toy_model._session.decoder, "run", counting)
    toy_model.predict(embedding, box=np.tile(BOX, (2 * PROMPTS_PER_CALL + 1, 1)))
    assert sizes == [PROMPTS_PER_CALL, PROMPTS_PER_CALL, 1]


def test_low_res_masks_at_a_quarter_of_the_input(tmp_path: Path) -> None:
    with samrt.load(write_toy_bundle(tmp_path / "b", stride=16)) as model:
        embedding = model.encode(IMAGE)
        result = model.predict(embedding, POINTS, LABELS, return_logits=True)
    masks, _ = toy_decoder(feature(embedding), *_tokens(POINTS, LABELS))
    assert result.low_res_masks.shape == (3, 16, 16)
    np.testing.assert_allclose(result.masks, upscale_masks(masks[0, 1:], geometry(64, 16), INPUT, SIZE), atol=1e-4)


def test_scribble_is_predicted_twice(toy_model: Model, embedding: samrt.Embedding) -> None:
    scribble = Scribble([[[10, 20], [60, 20]]], background=[[[80, 5], [80, 35]]], max_points=2)
    points, labels = [[22.5, 20], [47.5, 20], [80, 12.5], [80, 27.5]], [1, 1, 0, 0]
    first = toy_model.predict(embedding, points, labels)
    corrected = first.low_res_masks[np.argmax(first.iou_predictions)].copy()
    rows, columns = (np.array([20, 5]) + 0.5) * 28 / 40, (np.array([10, 60, 80]) + 0.5) * 64 / 90
    stroke = corrected[int(rows[0]), int(columns[0]) : int(columns[1]) + 1]
    np.maximum(stroke, STROKE_LOGIT, out=stroke)
    other = corrected[int(rows[1]) : int(35.5 * 28 / 40) + 1, int(columns[2])]
    np.minimum(other, -STROKE_LOGIT, out=other)
    expected = toy_model.predict(embedding, points, labels, mask_input=corrected[None])
    result = toy_model.predict(embedding, scribble=scribble)
    np.testing.assert_array_equal(result.low_res_masks, expected.low_res_masks)
    np.testing.assert_array_equal(result.masks, expected.masks)
    assert (result.iou_predictions > first.iou_predictions).all()


def test_scribble_joins_points_a_box_and_a_mask(toy_model: Model, embedding: samrt.Embedding) -> None:
    scribble = Scribble([[[40, 20]]])
    seen = []
    run = toy_model._session.decoder.run
    mask_input = np.full((1, 64, 64), 7, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_model._session.decoder, "run", lambda inputs: seen.append(inputs) or run(inputs))
        toy_model.predict(embedding, POINTS, LABELS, BOX, mask_input, scribble=scribble)
    for inputs in seen:
        np.testing.assert_array_equal(inputs["point_labels"], [[1, 0, 1, 2, 3]])
        np.testing.assert_allclose(inputs["point_coords"][0, 2], [40, 20] * SCALE, rtol=1e-6)
    np.testing.assert_array_equal(seen[0]["mask_input"][0], mask_input)
    assert (seen[1]["mask_input"] != seen[0]["mask_input"]).any()


def test_scribble_is_one_prompt(toy_model: Model, embedding: samrt.Embedding) -> None:
    with pytest.raises(InputError, match="one prompt and cannot join a batch"):
        toy_model.predict(embedding, box=[BOX], scribble=Scribble([[[5, 5]]]))
    with pytest.raises(InputError, match="leaves the image"):
        toy_model.predict(embedding, scribble=Scribble([[[5, 42]]]))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "prompt is empty"),
        ({"point_coords": [[92, 5]], "point_labels": [1]}, "outside the image of 90x40"),
        ({"box": [5, 5, 5, 9]}, "no area"),
        ({"box": [9, 5, 5, 9]}, "inverted"),
        ({"point_coords": [[1, 1]], "point_labels": [7]}, "point_labels must be"),
        ({"mask_input": np.zeros((1, 32, 32))}, r"\[1, 64, 64\]"),
    ],
)
def test_wrong_prompts(toy_model: Model, embedding: samrt.Embedding, prompt: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        toy_model.predict(embedding, **prompt)


def test_saved_embedding_predicts_the_same(toy_model: Model, embedding: samrt.Embedding, tmp_path: Path) -> None:
    embedding.save(tmp_path / "a.npz")
    again = toy_model.predict(samrt.Embedding.load(tmp_path / "a.npz"), POINTS, LABELS)
    np.testing.assert_array_equal(again.masks, toy_model.predict(embedding, POINTS, LABELS).masks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_id": "cd" * 8 + "@64"}, f"was made by model {'cd' * 8}@64, this model is {'ab' * 8}@64"),
        (
            {"features": {"image_embeddings": np.zeros((1, C, 8, 8), np.float32)}},
            rf"has the features \w+ \[1, {C}, 8, 8\], this model's are image_embeddings \[1, {C}, 16, 16\]",
        ),
        (
            {"features": {"others": np.zeros((1, C, 16, 16), np.float32)}},
            rf"has the features others \[1, {C}, 16, 16\], this model's are image_embeddings",
        ),
        ({"input_size": (28, 128)}, r"has the input_size \(28, 128\), not the longer side 64"),
    ],
)
def test_embedding_of_another_model(
    toy_model: Model, embedding: samrt.Embedding, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"the embedding {message}.*; encode the image with this model"):
        toy_model.predict(replace(embedding, **change), POINTS, LABELS)


def test_image_in_place_of_an_embedding(toy_model: Model) -> None:
    with pytest.raises(InputError, match=r"must come from Model.encode, not ndarray"):
        toy_model.predict(IMAGE, POINTS, LABELS)  # type: ignore[arg-type]


def test_encoder_that_overflows_is_not_believed(toy_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        toy_model._session.encoder,
        "run",
        lambda *_, **__: {"image_embeddings": np.full((1, C, 16, 16), np.nan, np.float32)},
    )
    with pytest.raises(BackendError, match="encoder returned NaN or infinity in fp32; look for extreme values"):
        toy_model.encode(IMAGE)
    choice = toy_model.choice
    monkeypatch.setattr(toy_model._session, "choice", replace(choice, form=replace(choice.form, precision="fp16")))
    with pytest.raises(BackendError, match="encoder returned NaN or infinity in fp16; export it with precisions="):
        toy_model.encode(IMAGE)


@pytest.mark.parametrize("name", ["iou_predictions", "low_res_masks"])
def test_decoder_that_overflows_is_not_believed(
    toy_model: Model, embedding: samrt.Embedding, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = toy_model._session.decoder.run

    def overflow(inputs: Any) -> Any:
        outputs = run(inputs)
        return {**outputs, name: np.full_like(outputs[name], np.inf)}

    monkeypatch.setattr(toy_model._session.decoder, "run", overflow)
    with pytest.raises(BackendError, match="the decoder returned NaN or infinity"):
        toy_model.predict(embedding, POINTS, LABELS)


def test_low_res_predictions_are_all_four_masks(toy_model: Model, embedding: samrt.Embedding) -> None:
    masks, scores = toy_decoder(feature(embedding), *_tokens(POINTS, LABELS))
    # ONNX Runtime has no device, and returns arrays in either case.
    for predict in (toy_model.predict_low_res, toy_model.predict_low_res_on_device):
        low_res, predicted = predict(embedding, POINTS, LABELS)
        np.testing.assert_allclose(low_res, masks, atol=1e-4)
        np.testing.assert_allclose(predicted, scores, atol=1e-5)
    boxes = np.tile(BOX, (PROMPTS_PER_CALL + 1, 1))
    low_res, predicted = toy_model.predict_low_res(embedding, box=boxes)
    assert low_res.shape == (PROMPTS_PER_CALL + 1, 4, 64, 64)
    np.testing.assert_array_equal(low_res[0], low_res[-1])
    with pytest.raises(InputError, match=f"{PROMPTS_PER_CALL} prompts go at once, not {PROMPTS_PER_CALL + 1}; split"):
        toy_model.predict_low_res_on_device(embedding, box=boxes)
    with pytest.raises(InputError, match="outside"):
        toy_model.predict_low_res(embedding, [[400, 10]], [1])


def test_prepared_images_and_batches_are_encoded_alike(toy_model: Model, embedding: samrt.Embedding) -> None:
    pixels = normalize_and_pad(resize_image(IMAGE, GEOMETRY), GEOMETRY)
    prepared = toy_model.encode_prepared(pixels, SIZE, INPUT)
    np.testing.assert_array_equal(feature(prepared), feature(embedding))
    assert (prepared.original_size, prepared.input_size) == (embedding.original_size, embedding.input_size)
    tall = np.ascontiguousarray(IMAGE.transpose(1, 0, 2))
    first, second, third = toy_model.encode_batch([IMAGE, tall, IMAGE])
    np.testing.assert_array_equal(feature(first), feature(embedding))
    np.testing.assert_array_equal(feature(third), feature(first))
    assert (second.original_size, second.input_size) == ((90, 40), (64, 28))
    np.testing.assert_array_equal(feature(second), feature(toy_model.encode(tall)))
    assert toy_model.encode_batch([]) == []


@pytest.mark.parametrize("shape", [(1, 2, 64, 64), (2, 3, 64, 64), (3, 64, 64), (1, 3, 64, 63), (0, 3, 64, 64)])
def test_prepared_images_of_another_shape_are_refused(toy_model: Model, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"must have the shape \[1, 3, 64, 64\], not \["):
        toy_model.encode_prepared(np.zeros(shape, np.float32), SIZE, INPUT)


@pytest.mark.parametrize("size", [(28, 63), (128, 64), SIZE, (), 64, None, ("28", "64")])
def test_the_size_of_a_prepared_image_must_be_the_resized_one(toy_model: Model, size: Any) -> None:
    with pytest.raises(InputError, match=r"input_size must be .* the longer side 64, not"):
        toy_model.encode_prepared(np.zeros((1, 3, 64, 64), np.float32), SIZE, size)


def test_prepared_images_of_another_dtype_fail_in_the_backend(toy_model: Model) -> None:
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        toy_model.encode_prepared(np.zeros((1, 3, 64, 64)), SIZE, INPUT)


def test_an_embedding_does_not_keep_the_memory_of_the_session(toy_bundle: Path) -> None:
    with samrt.load(toy_bundle) as model:
        features = model.encode(np.zeros((64, 64, 3), np.uint8)).features
    assert all(feature.flags.owndata for feature in features.values())
