"""From an image to masks: an exported bundle under samrt's SamPredictor against Meta's model under Meta's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracle import meta_sam, photograph, segment_anything
from seeded import RELEASED_DECODER, SMALL_VIT, seeded_checkpoint, seeded_state, vit_decoder, vit_state

import samrt
from samrt import SamPredictor
from samrt.bundle.precisions import PRECISIONS
from samrt.geometry import normalize_and_pad
from samrt_export.families.sam import RELEASED
from samrt_export.models.image_encoder_vit import ImageEncoderViT
from samrt_export.models.sam import Sam
from samrt_export.pipeline import export

TOLERANCE = PRECISIONS["fp32"].tolerance
# The released input size, grid and window, so that windows are padded from 64 to 70 tokens; all else is small.
VIT_1024 = replace(SMALL_VIT, image_size=1024, window_size=14, depth=2, global_blocks=(1,))


@dataclass(frozen=True)
class Pair:
    """The same weights under both predictors."""

    ours: SamPredictor
    theirs: Any

    def set_image(self, image: NDArray[np.uint8], image_format: str = "RGB") -> None:
        self.ours.set_image(image, image_format)
        self.theirs.set_image(image, image_format)


@pytest.fixture(scope="module")
def small(small_bundle: Path) -> Pair:
    sam = meta_sam(vit_state(), SMALL_VIT, vit_decoder())
    return Pair(SamPredictor(samrt.load(small_bundle)), segment_anything().SamPredictor(sam))


@pytest.fixture(scope="module")
def at_1024(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("vit_1024")
    export(seeded_checkpoint(folder / "seeded.pth", VIT_1024), folder / "bundle")
    sam = meta_sam(vit_state(VIT_1024), VIT_1024, vit_decoder(VIT_1024))
    return Pair(SamPredictor(samrt.load(folder / "bundle")), segment_anything().SamPredictor(sam))


@pytest.fixture(scope="module")
def vit_b(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """ViT-B at full size, through a checkpoint that Meta's own registry loads; an image is set.

    Costs one or two minutes, 3 GB of memory and 0.8 GB of disk: an export with its comparison, and each encoder once.
    """
    folder = tmp_path_factory.mktemp("vit_b")
    with torch.device("meta"):
        sam = Sam(ImageEncoderViT(RELEASED["vit_b"]), RELEASED_DECODER)
    torch.save(seeded_state(sam, seed=0), folder / "sam_vit_b.pth")
    manifest = export(folder / "sam_vit_b.pth", folder / "bundle")
    assert (manifest.variant, manifest.geometry.encoder_side, manifest.forms[0].name) == ("vit_b", 1024, "fp32-chunked")
    meta = segment_anything().sam_model_registry["vit_b"](checkpoint=folder / "sam_vit_b.pth").eval()
    pair = Pair(SamPredictor(samrt.load(folder / "bundle")), segment_anything().SamPredictor(meta))
    pair.set_image(photograph(600, 800))
    return pair


# Comparing


def relative_l2(value: NDArray[Any], truth: NDArray[Any]) -> float:
    assert value.shape == truth.shape
    return float(np.linalg.norm(value.astype(np.float64) - truth) / np.linalg.norm(truth.astype(np.float64)))


def assert_same_embedding(pair: Pair) -> None:
    embedding = pair.ours.get_image_embedding()
    assert (
        relative_l2(np.asarray(embedding), pair.theirs.get_image_embedding().numpy()) <= TOLERANCE.embedding_relative_l2
    )
    assert (pair.ours.original_size, pair.ours.input_size) == (pair.theirs.original_size, pair.theirs.input_size)


def assert_same_masks(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    """Masks or logits, scores and low-res logits of one call of each."""
    masks, scores, low_res = map(np.asarray, ours)
    expected_masks, expected_scores, expected_low_res = map(np.asarray, theirs)
    assert (masks.dtype, scores.dtype, low_res.dtype) == (expected_masks.dtype, np.float32, np.float32)
    assert masks.shape == expected_masks.shape
    assert scores.shape == expected_scores.shape
    assert low_res.shape == expected_low_res.shape
    assert np.abs(scores - expected_scores).max() <= TOLERANCE.iou_prediction
    found, expected = masks > 0, expected_masks > 0
    union = (found | expected).sum(axis=(-2, -1))
    iou = np.where(union == 0, 1.0, (found & expected).sum(axis=(-2, -1)) / np.maximum(union, 1))
    assert iou.min() >= TOLERANCE.mask_iou
    # An overlap says something of masks that are neither empty nor full.
    covered = (expected_low_res > 0).mean(axis=(-2, -1))
    assert covered.min() > 0.01
    assert covered.max() < 0.99
    if masks.dtype == np.float32:
        assert relative_l2(masks, expected_masks) <= 1e-4
    assert relative_l2(low_res, expected_low_res) <= 1e-4


def prompts_for(height: int, width: int) -> dict[str, dict[str, Any]]:
    """One prompt of each kind, in pixels of an image of this size."""
    scale = np.array([width, height])
    points = np.array([[0.5, 0.4], [0.1, 0.9], [0.83, 0.21]]) * scale
    box = np.concatenate([[0.2, 0.15] * scale, [0.7, 0.8] * scale])
    return {
        "point": {"point_coords": points[:1], "point_labels": np.array([1])},
        "points": {"point_coords": points, "point_labels": np.array([1, 0, 1])},
        "box": {"box": box},
        "box with an axis more": {"box": box[None]},
        "points and box": {"point_coords": points[:2], "point_labels": np.array([1, 0]), "box": box},
        "nothing": {},
    }


def assert_parity(pair: Pair, height: int, width: int, **options: Any) -> None:
    """Every kind of prompt on the image that is set, alone and refined by the mask that it gave."""
    for prompt in prompts_for(height, width).values():
        ours, theirs = pair.ours.predict(**prompt, **options), pair.theirs.predict(**prompt, **options)
        assert_same_masks(ours, theirs)
        # Each goes on from its own result, as a user's program does.
        best = int(np.argmax(theirs[1]))
        assert int(np.argmax(ours[1])) == best
        refined_ours = pair.ours.predict(**prompt, mask_input=ours[2][best : best + 1], **options)
        refined_theirs = pair.theirs.predict(**prompt, mask_input=theirs[2][best : best + 1], **options)
        assert_same_masks(refined_ours, refined_theirs)
        assert relative_l2(refined_ours[2], ours[2]) > 0.01  # the mask took part


def assert_batch_parity(pair: Pair, height: int, width: int) -> None:
    """`predict_torch` with more prompts than go into one run of the decoder."""
    random = np.random.default_rng(2)
    coords = torch.tensor(random.uniform(0, 1, (6, 2, 2)) * (width, height))
    labels = torch.tensor(random.integers(0, 2, (6, 2)))
    corners = np.sort(random.uniform(0, 1, (6, 2, 2)), axis=1) * (width, height)
    boxes = torch.tensor(corners.reshape(6, 4))

    def predict(predictor: Any, masks: Any, **options: Any) -> Any:
        transform, size = predictor.transform, (height, width)
        points, in_boxes = transform.apply_coords_torch(coords, size), transform.apply_boxes_torch(boxes, size)
        given = {
            "points": (points, labels, None),
            "boxes": (None, None, in_boxes),
            "both": (points, labels, in_boxes),
        }
        with torch.inference_mode():
            return {kind: predictor.predict_torch(*each, masks, **options) for kind, each in given.items()}

    ours, theirs = predict(pair.ours, None), predict(pair.theirs, None)
    for kind, result in theirs.items():
        assert all(isinstance(each, torch.Tensor) for each in ours[kind])
        assert ours[kind][0].shape == (6, 3, height, width)
        assert_same_masks(ours[kind], result)
    options = {"multimask_output": False, "return_logits": True}
    refined_ours = predict(pair.ours, ours["both"][2][:, :1], **options)
    refined_theirs = predict(pair.theirs, theirs["both"][2][:, :1], **options)
    for kind, result in refined_theirs.items():
        assert_same_masks(refined_ours[kind], result)


# The small model at 256


@pytest.mark.parametrize(
    ("height", "width"),
    [
        pytest.param(240, 320, id="landscape"),
        pytest.param(301, 250, id="portrait"),
        pytest.param(256, 256, id="of the input's size"),
        pytest.param(1200, 1801, id="larger than the input"),
        pytest.param(100, 1000, id="very wide"),
        pytest.param(7, 3, id="tiny"),
        pytest.param(1, 1, id="one pixel"),
    ],
)
def test_image_sizes(small: Pair, height: int, width: int) -> None:
    image = photograph(height, width)
    small.set_image(image)
    assert_same_embedding(small)
    assert_parity(small, height, width)


@pytest.mark.parametrize("options", [{"multimask_output": False}, {"return_logits": True}], ids=str)
def test_options(small: Pair, options: dict[str, Any]) -> None:
    small.set_image(photograph(360, 480))
    assert_parity(small, 360, 480, **options)


def test_batches(small: Pair) -> None:
    small.set_image(photograph(480, 400))
    assert_batch_parity(small, 480, 400)


def test_bgr(small: Pair) -> None:
    image = photograph(240, 400)
    small.set_image(image, "RGB")
    as_rgb = small.ours.features.numpy()
    small.set_image(image, "BGR")
    assert_same_embedding(small)
    assert relative_l2(small.ours.features.numpy(), as_rgb) > 0.01
    assert_parity(small, 240, 400)


def test_images_that_are_resized_already(small: Pair) -> None:
    resized = small.theirs.transform.apply_image(photograph(450, 300))
    tensor = torch.tensor(resized).permute(2, 0, 1)[None]
    small.ours.set_torch_image(tensor, (450, 300))
    small.theirs.set_torch_image(tensor, (450, 300))
    assert_same_embedding(small)
    assert_batch_parity(small, 450, 300)


@pytest.mark.parametrize("name", ["small", "at_1024"])
@pytest.mark.parametrize("size", [(200, 300), (333, 77), (256, 256), (1024, 683), (1500, 2000), (7, 3), (1, 1)])
def test_preprocessing_is_metas_bit_for_bit(name: str, size: tuple[int, int], request: pytest.FixtureRequest) -> None:
    pair: Pair = request.getfixturevalue(name)
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    resized = pair.ours.transform.apply_image(image)
    expected = pair.theirs.transform.apply_image(image)
    assert resized.dtype == expected.dtype == np.uint8
    assert np.array_equal(resized, expected)
    model = pair.ours.model
    found = normalize_and_pad(resized, model.geometry)
    assert np.array_equal(found, pair.theirs.model.preprocess(torch.tensor(expected).permute(2, 0, 1)[None]).numpy())


# At the released input size


def test_at_1024(at_1024: Pair) -> None:
    at_1024.set_image(photograph(480, 640))
    assert_same_embedding(at_1024)
    assert_parity(at_1024, 480, 640)
    assert_batch_parity(at_1024, 480, 640)


def test_vit_b_embedding(vit_b: Pair) -> None:
    assert_same_embedding(vit_b)


def test_vit_b_masks(vit_b: Pair) -> None:
    """The three masks; one in their place is a choice among the same outputs, which `test_options` compares."""
    assert_parity(vit_b, 600, 800)


def test_vit_b_batches(vit_b: Pair) -> None:
    assert_batch_parity(vit_b, 600, 800)
