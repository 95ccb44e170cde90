"""Models in pickles, which hold their path and options, and copies, which are refused."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from toy_bundle import rewrite_manifest

import samrt
from samrt.errors import BackendError, BundleError, InputError, Remedy
from samrt.model import Model

pytest_plugins = ("toy_fixtures",)

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)


def low_res(model: Model) -> np.ndarray:
    return model.predict(model.encode(IMAGE), [[30.0, 20.0]], [1]).low_res_masks


def test_a_pickle_loads_the_bundle_again(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_bundle.parent)
    with samrt.load(
        own_bundle.name, threads=1, precision="fp32", device_options=samrt.DeviceOptions(device=3)
    ) as model:
        written = pickle.dumps(model)
        monkeypatch.chdir("/")
        with pickle.loads(written) as again:
            assert again._origin == model._origin
            assert again._origin.threads == 1
            model.close()
            np.testing.assert_array_equal(low_res(again), low_res(samrt.load(own_bundle)))
    assert len(written) < 10_000


def test_a_subclass_stays_one(own_bundle: Path) -> None:
    assert type(pickle.loads(pickle.dumps(Traced(samrt.open_bundle(own_bundle))))) is Traced


class Traced(Model):
    pass


def test_a_predictor_keeps_its_image(toy_model: Model) -> None:
    predictor = samrt.SamPredictor(toy_model)
    predictor.set_image(IMAGE)
    again = pickle.loads(pickle.dumps(predictor))
    prompt = np.array([[30.0, 20.0]]), np.array([1])
    for found, expected in zip(again.predict(*prompt), predictor.predict(*prompt), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_embeddings_and_predictions_are_pickled_as_they_are(toy_model: Model) -> None:
    embedding = pickle.loads(pickle.dumps(toy_model.encode(IMAGE)))
    prediction = toy_model.predict(embedding, [[30.0, 20.0]], [1])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(prediction)).masks, prediction.masks)


def test_a_bundle_that_is_gone_is_named(own_bundle: Path) -> None:
    written = pickle.dumps(samrt.load(own_bundle))
    own_bundle.rename(own_bundle.with_name("moved"))
    with pytest.raises(BundleError, match=f"a pickled model is loaded from {own_bundle}, and there is no bundle"):
        pickle.loads(written)


def test_a_bundle_that_was_replaced_is_named(own_bundle: Path) -> None:
    written = pickle.dumps(samrt.load(own_bundle))
    rewrite_manifest(own_bundle, variant="another")
    with pytest.raises(BundleError, match=f"loaded from {own_bundle}, and the bundle there was replaced"):
        pickle.loads(written)


def test_what_cannot_be_pickled_says_why(own_bundle: Path) -> None:
    stream = samrt.DeviceOptions(stream=7)
    with pytest.raises(InputError, match="the stream belongs to this process"):
        pickle.dumps(samrt.load(own_bundle, backend="onnxruntime", device_options=stream))
    model = samrt.load(own_bundle)
    model.close()
    with pytest.raises(BackendError, match="closed and cannot be pickled"):
        pickle.dumps(model)


@pytest.mark.parametrize("function", [copy.copy, copy.deepcopy])
def test_copies_are_refused(toy_model: Model, function: object) -> None:
    with pytest.raises(InputError, match="a loaded model cannot be copied"):
        function(toy_model)
    with pytest.raises(InputError, match="a loaded model cannot be copied"):
        copy.deepcopy(samrt.SamPredictor(toy_model))


def test_errors_come_out_of_a_worker_whole() -> None:
    error = BackendError("no engines", Remedy("load with {backend}", {"backend": "onnxruntime"}))
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.facts, again.remedy) == (str(error), error.facts, error.remedy)
