"""A difference between a checkpoint and its graphs is noticed, measured and refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from seeded import SMALL_VIT, vit_state

from samrt.bundle.contract import ROLES
from samrt.bundle.precisions import PRECISIONS, Tolerance
from samrt.errors import ExportError
from samrt.verification.compare import Reference, compare
from samrt_export.checkpoint import Checkpoint
from samrt_export.families import LoadedModel, load_model
from samrt_export.verify import check, checkpoint_reference, in_torch

Arrays = dict[str, NDArray[Any]]
TOLERANCE = Tolerance(
    embedding_relative_l2=1e-5, logits_relative_l2=1e-3, mask_iou=0.999, iou_prediction=1e-4, logit_rounding=1e-5
)


# Holding figures against the tolerance


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """`TOLERANCE` in the place of that of fp32."""
    monkeypatch.setitem(PRECISIONS, "fp32", replace(PRECISIONS["fp32"], tolerance=TOLERANCE))


def figures(**changes: float) -> dict[str, Any]:
    """Those of a perfect export, but for `changes` in the embedding or in one of two prompts."""
    perfect = {"logits_relative_l2": 0.0, "mask_iou": 1.0, "iou_prediction": 0.0}
    embedding = changes.pop("embedding_relative_l2", 0.0)
    return {"embedding_relative_l2": embedding, "prompts": {"point": perfect, "a box": perfect | changes}}


@pytest.mark.usefixtures("bounds")
def test_accepts_figures_on_the_bounds() -> None:
    check(figures(), "fp32")
    check(figures(embedding_relative_l2=1e-5, mask_iou=0.999, iou_prediction=1e-4), "fp32")


@pytest.mark.usefixtures("bounds")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("embedding_relative_l2", 1.1e-5, r"embedding: relative L2 1\.1e-05 > 1e-05"),
        ("mask_iou", 0.9989, r"a box: mask IoU 0\.99890 < 0\.999"),
        ("iou_prediction", 1.1e-4, r"a box: predicted IoU off by 0\.00011 > 0\.0001"),
        ("logits_relative_l2", 1.1e-3, r"a box: logits: relative L2 0\.0011 > 0\.001"),
    ],
)
@pytest.mark.parametrize("not_a_number", [False, True])
def test_refuses_each_figure_past_its_bound(name: str, value: float, said: str, not_a_number: bool) -> None:
    if not_a_number:
        value, said = float("nan"), r"(relative L2|mask IoU|off by) nan"
    with pytest.raises(ExportError, match=said) as caught:
        check(figures(**{name: value}), "fp32")
    assert "Nothing was written" in str(caught.value)
    assert "point:" not in str(caught.value)


@pytest.mark.usefixtures("bounds")
def test_names_every_figure_past_its_bound() -> None:
    with pytest.raises(ExportError, match=r"embedding: .*; a box: mask IoU .*; a box: predicted IoU"):
        check(figures(embedding_relative_l2=1.0, mask_iou=0.5, iou_prediction=0.5), "fp32")


# Measuring


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(Checkpoint(Path("seeded.pth"), vit_state(), sha256="0" * 64, bytes=0))


@pytest.fixture(scope="module")
def reference(loaded: LoadedModel) -> Reference:
    return checkpoint_reference(loaded)


def tampered(run: Callable[[Arrays], Any], tamper: Callable[[Arrays], None]) -> Callable[[Any], Arrays]:
    """A graph whose outputs a test changes."""

    def changed(inputs: Arrays) -> Arrays:
        outputs = {name: array.copy() for name, array in run(inputs).items()}
        tamper(outputs)
        return outputs

    return changed


def leave(_: Arrays) -> None:
    pass


def measured(
    loaded: LoadedModel,
    reference: Reference,
    tamper_encoder: Callable[[Arrays], None] = leave,
    tamper_decoder: Callable[[Arrays], None] = leave,
    precision: str = "fp32",
) -> dict[str, Any]:
    encoder, decoder = (in_torch(loaded.module(role), loaded.contract.graph(role, "")) for role in ROLES)
    return compare(
        reference, tampered(encoder, tamper_encoder), tampered(decoder, tamper_decoder), PRECISIONS[precision].tolerance
    )


def noise(name: str, amount: float) -> Callable[[Arrays], None]:
    def tamper(outputs: Arrays) -> None:
        array = outputs[name]
        random = np.random.default_rng(9).standard_normal(array.shape)
        outputs[name] = (array + amount * random * array.std()).astype(np.float32)

    return tamper


def test_the_same_model_has_no_difference(loaded: LoadedModel, reference: Reference) -> None:
    found = measured(loaded, reference)
    assert found["embedding_relative_l2"] == 0
    for kind, of_prompt in found["prompts"].items():
        assert of_prompt == {"logits_relative_l2": 0, "mask_iou": 1, "iou_prediction": 0}, kind
    check(found, "fp32")


def test_the_reference_covers_every_kind_of_prompt(reference: Reference) -> None:
    """And its masks are neither empty nor full, so that their overlap says something."""
    labels = {label for prompt in reference.prompts.values() for label in prompt["point_labels"].ravel().tolist()}
    assert labels == {-1, 0, 1, 2, 3}
    counts = {prompt["point_labels"].shape for prompt in reference.prompts.values()}
    assert {(1, 0), (3, 2)} <= counts  # a mask alone, and a batch
    assert {float(flag) for prompt in reference.prompts.values() for flag in prompt["has_mask_input"]} == {0.0, 1.0}
    for kind, (masks, iou_predictions) in reference.outputs.items():
        assert 0.01 < (masks > 0).mean() < 0.99, kind
        assert len(np.unique(iou_predictions)) == iou_predictions.size


def test_the_reference_is_seeded(loaded: LoadedModel, reference: Reference) -> None:
    again = checkpoint_reference(loaded)
    assert np.array_equal(again.image, reference.image)
    assert np.array_equal(again.features["image_embeddings"], reference.features["image_embeddings"])
    # The padding below takes part.
    assert not reference.image[0, :, -SMALL_VIT.patch_size :].any()
    assert reference.image[0, :, : SMALL_VIT.patch_size].all(axis=0).any()


def test_notices_a_perturbed_encoder(loaded: LoadedModel, reference: Reference) -> None:
    found = measured(loaded, reference, tamper_encoder=noise("image_embeddings", 1e-4))
    assert 0.5e-4 < found["embedding_relative_l2"] < 2e-4
    # Its prompts go through the perturbed embedding.
    assert all(of_prompt["logits_relative_l2"] > 1e-6 for of_prompt in found["prompts"].values())
    with pytest.raises(ExportError, match="embedding: relative L2"):
        check(found, "fp32")


def test_notices_perturbed_masks(loaded: LoadedModel, reference: Reference) -> None:
    found = measured(loaded, reference, tamper_decoder=noise("low_res_masks", 0.02))
    assert found["embedding_relative_l2"] == 0
    for of_prompt in found["prompts"].values():
        assert 0.005 < of_prompt["logits_relative_l2"] < 0.05
        assert 0.9 < of_prompt["mask_iou"] < 0.9999
        assert of_prompt["iou_prediction"] == 0
    with pytest.raises(ExportError, match="mask IoU"):
        check(found, "fp32")


def test_notices_perturbed_scores(loaded: LoadedModel, reference: Reference) -> None:
    def shift(outputs: Arrays) -> None:
        outputs["iou_predictions"][-1, 2] -= 0.01

    found = measured(loaded, reference, tamper_decoder=shift)
    assert all(of_prompt["iou_prediction"] == pytest.approx(0.01, rel=1e-3) for of_prompt in found["prompts"].values())
    with pytest.raises(ExportError, match=r"predicted IoU off by 0\.01"):
        check(found, "fp32")


def test_one_bad_mask_of_a_batch_is_not_averaged_away(loaded: LoadedModel, reference: Reference) -> None:
    def invert_one(outputs: Arrays) -> None:
        outputs["low_res_masks"][-1, 3] *= -1

    found = measured(loaded, reference, tamper_decoder=invert_one)
    assert all(of_prompt["mask_iou"] < 0.01 for of_prompt in found["prompts"].values())


@pytest.mark.parametrize("output", ["image_embeddings", "low_res_masks", "iou_predictions"])
@pytest.mark.parametrize("spoilt", [np.nan, -np.inf])
def test_what_is_not_finite_never_passes(loaded: LoadedModel, reference: Reference, output: str, spoilt: float) -> None:
    def spoil(outputs: Arrays) -> None:
        if output in outputs:
            # The lowest logit: background, which NaN and minus infinity look like.
            outputs[output].flat[outputs[output].argmin()] = spoilt

    with pytest.raises(ExportError, match=r"nan|inf"):
        check(measured(loaded, reference, spoil, spoil), "fp32")


def test_empty_masks_agree_with_empty_masks_only(loaded: LoadedModel, reference: Reference) -> None:
    def empty(outputs: Arrays) -> None:
        outputs["low_res_masks"][:] = -1

    emptied = {kind: (np.full_like(masks, -1), ious) for kind, (masks, ious) in reference.outputs.items()}
    agreeing = measured(loaded, replace(reference, outputs=emptied), tamper_decoder=empty)
    assert all(of_prompt["mask_iou"] == 1 for of_prompt in agreeing["prompts"].values())
    differing = measured(loaded, reference, tamper_decoder=empty)
    assert all(of_prompt["mask_iou"] == 0 for of_prompt in differing["prompts"].values())


@pytest.mark.parametrize(
    ("precision", "magnitude", "decided"),
    [("fp32", 1e-6, False), ("fp32", 1e-4, True), ("fp16", 1e-4, False), ("fp16", 1e-2, True)],
)
def test_what_is_zero_but_for_rounding_may_have_either_sign(
    loaded: LoadedModel, reference: Reference, precision: str, magnitude: float, decided: bool
) -> None:
    """Among millions of logits some are, and a small mask must not be refused for one of them."""
    logit = magnitude * float(np.sqrt(np.mean(np.square(reference.outputs["point"][0]))))
    masks = np.full_like(reference.outputs["point"][0], -logit / magnitude)
    masks[..., 8:20, 8:20] *= -1
    masks[..., 8, 8] = logit

    def tip_one(outputs: Arrays) -> None:
        outputs["low_res_masks"] = masks.copy()
        outputs["low_res_masks"][..., 8, 8] = -logit

    one = replace(
        reference,
        prompts={"point": reference.prompts["point"]},
        outputs={"point": (masks, reference.outputs["point"][1])},
    )
    found = measured(loaded, one, tamper_decoder=tip_one, precision=precision)["prompts"]["point"]["mask_iou"]
    assert found == (143 / 144 if decided else 1)
