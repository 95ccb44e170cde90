"""An image encoded by a region: what is cut from it is what was seen; prompts and masks stay in its frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import samrt
from samrt.errors import InputError
from samrt.model import Model
from samrt.scribble import Scribble

pytest_plugins = ("toy_fixtures",)

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
REGION = X0, Y0, X1, Y1 = 20, 10, 70, 38
CUT = np.ascontiguousarray(IMAGE[Y0:Y1, X0:X1])
POINTS, LABELS, BOX = np.array([[30.0, 20.0], [60.0, 12.0]]), [1, 0], np.array([25.0, 12.0, 60.0, 35.0])


@pytest.fixture(scope="module")
def embedding(toy_model: Model) -> samrt.Embedding:
    return toy_model.encode(IMAGE, region=REGION)


def test_only_the_region_is_seen(toy_model: Model, embedding: samrt.Embedding) -> None:
    cut = toy_model.encode(CUT)
    np.testing.assert_array_equal(embedding.features["image_embeddings"], cut.features["image_embeddings"])
    assert (embedding.original_size, embedding.region, embedding.input_size) == ((40, 90), REGION, cut.input_size)
    assert toy_model.encode(IMAGE, region=(0, 0, 90, 40)).is_whole


def moved(prompt: dict[str, Any]) -> dict[str, Any]:
    """A prompt on the image, in pixels of its region."""
    prompt = dict(prompt)
    if "point_coords" in prompt:
        prompt["point_coords"] = prompt["point_coords"] - (X0, Y0)
    if "box" in prompt:
        prompt["box"] = prompt["box"] - (X0, Y0, X0, Y0)
    return prompt


@pytest.mark.parametrize(
    "prompt",
    [
        {"point_coords": POINTS, "point_labels": LABELS},
        {"box": BOX},
        {"point_coords": np.stack([POINTS] * 5), "point_labels": [LABELS] * 5, "box": np.stack([BOX] * 5)},
        {"box": BOX, "mask_input": np.random.default_rng(1).standard_normal((1, 64, 64)).astype(np.float32)},
    ],
)
def test_masks_are_those_of_the_cut_in_their_place(
    toy_model: Model, embedding: samrt.Embedding, prompt: dict[str, Any]
) -> None:
    found = toy_model.predict(embedding, **prompt)
    expected = toy_model.predict(toy_model.encode(CUT), **moved(prompt))
    assert found.masks.shape[-2:] == (40, 90)
    np.testing.assert_array_equal(found.masks[..., Y0:Y1, X0:X1], expected.masks)
    assert found.masks.sum() == expected.masks.sum() > 0
    np.testing.assert_array_equal(found.low_res_masks, expected.low_res_masks)
    logits = toy_model.predict(embedding, **prompt, return_logits=True).masks
    np.testing.assert_array_equal(logits > 0, found.masks)
    assert (logits[..., :Y0, :] == -np.inf).all()


@pytest.mark.parametrize("painted", [False, True])
def test_scribbles_are_moved_too(toy_model: Model, embedding: samrt.Embedding, painted: bool) -> None:
    if painted:
        paint = np.zeros((40, 90), bool)
        paint[15:25, 30:50] = True
        scribble, cut = Scribble(paint, [[[65, 12], [68, 30]]]), Scribble(paint[Y0:Y1, X0:X1], [[[45, 2], [48, 20]]])
    else:
        scribble, cut = Scribble([[[25, 20], [60, 20]]]), Scribble([[[5, 10], [40, 10]]])
    found = toy_model.predict(embedding, scribble=scribble)
    expected = toy_model.predict(toy_model.encode(CUT), scribble=cut)
    np.testing.assert_array_equal(found.masks[:, Y0:Y1, X0:X1], expected.masks)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"point_coords": [[5, 20]], "point_labels": [1]}, r"point \(5, 20\) lies outside the region 20,10,70,38"),
        ({"box": [25, 12, 72, 20]}, "reaches outside the region 20,10,70,38 that was encoded"),
        ({"scribble": Scribble([[[25, 20], [75, 20]]])}, "foreground leaves the region 20,10,70,38"),
        ({"scribble": Scribble([[[25, 20]]], np.ones((40, 90), bool))}, "background leaves the region"),
        ({"box": [25, 12, 95, 20]}, "reaches outside the region"),
    ],
)
def test_prompts_outside_the_region_are_refused(
    toy_model: Model, embedding: samrt.Embedding, prompt: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        toy_model.predict(embedding, **prompt)


@pytest.mark.parametrize("region", [(0, 0, 91, 40), (20, 10, 20, 30), (-1, 0, 5, 5), "abcd", (0.5, 0, 9, 9), None])
def test_regions_are_checked_before_the_work(toy_model: Model, region: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if region is None:
        assert toy_model.encode(IMAGE, region=region).is_whole
        return
    monkeypatch.setattr(toy_model._session.encoder, "run", lambda *_, **__: pytest.fail("the encoder ran"))
    with pytest.raises(InputError, match="region"):
        toy_model.encode(IMAGE, region=region)


def test_a_region_may_be_an_array(toy_model: Model) -> None:
    region: Any = np.array(REGION)
    prepared = np.zeros((1, 3, 64, 64), np.float32)
    found = toy_model.encode_prepared(prepared, (40, 90), (36, 64), region=region)
    assert found.region == REGION
    assert toy_model.check_prompts((40, 90), POINTS, LABELS, region=region).count == 1


@pytest.mark.parametrize("region", [(0, 0, 0, 0), (), np.zeros(0), (-5, 0, 200, 200), "abcd"])
def test_regions_are_checked_wherever_they_are_given(toy_model: Model, region: Any) -> None:
    with pytest.raises(InputError, match="region"):
        toy_model.encode_prepared(np.zeros((1, 3, 64, 64), np.float32), (40, 90), (36, 64), region=region)
    with pytest.raises(InputError, match="region"):
        toy_model.check_prompts((40, 90), POINTS, LABELS, region=region)


@pytest.mark.parametrize(
    "image", [IMAGE, IMAGE[..., 0], IMAGE[..., :1], IMAGE / 255, np.dstack([IMAGE, IMAGE[..., 0]])]
)
def test_of_an_array_only_the_region_is_converted(toy_model: Model, image: Any) -> None:
    cut = toy_model.encode(np.ascontiguousarray(image[Y0:Y1, X0:X1]))
    found = toy_model.encode(image, region=REGION)
    np.testing.assert_array_equal(found.features["image_embeddings"], cut.features["image_embeddings"])
    spoilt = (image / 255 if image.dtype == np.uint8 else image).astype(np.float32)
    spoilt[0, 0] = np.nan
    assert toy_model.encode(spoilt, region=REGION).region == REGION
    with pytest.raises(InputError, match="NaN"):
        toy_model.encode(spoilt)
