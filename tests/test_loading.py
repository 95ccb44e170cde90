"""Loading a model: what is chosen, what is refused, and using it from several threads."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_bundle import rewrite_manifest

import samrt
from samrt.backends import onnxruntime as onnxruntime_backend
from samrt.bundle.folder import open_bundle
from samrt.errors import BackendError, BundleError, InputError
from samrt.model import Model

pytest_plugins = ("toy_fixtures",)

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
SIZE = (40, 90)
POINTS, LABELS = [[30.0, 20.0], [70.0, 5.0]], [1, 0]


@pytest.fixture(scope="module")
def embedding(toy_model: Model) -> samrt.Embedding:
    return toy_model.encode(IMAGE)


def test_load_says_what_it_chose(toy_bundle: Path) -> None:
    for backend in ("auto", "onnxruntime"):
        model = samrt.load(str(toy_bundle), backend=backend)
        assert (model.backend, model.image_size, model.manifest.family) == ("onnxruntime", 64, "toy")


def test_load_of_an_unknown_backend_comes_before_the_bundle(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="choose one of auto, onnxruntime"):
        samrt.load(tmp_path / "absent", backend="cuda")


def test_load_refuses_a_tampered_bundle(own_bundle: Path) -> None:
    weights = own_bundle / "encoder.weights"
    weights.write_bytes(b"\0" * weights.stat().st_size)
    with pytest.raises(BundleError, match=r"encoder.weights .* SHA-256"):
        samrt.load(own_bundle)


def test_open_bundle_is_used(toy_bundle: Path, embedding: samrt.Embedding) -> None:
    bundle = open_bundle(toy_bundle)
    for _ in range(2):
        with samrt.load(bundle) as model:
            assert model.manifest is bundle.manifest
            assert model.predict(embedding, POINTS, LABELS).masks.any()


def test_closed_model_says_so(own_bundle: Path, embedding: samrt.Embedding) -> None:
    model = samrt.load(own_bundle)
    model.close()
    model.close()
    with pytest.raises(BackendError, match="closed"):
        model.predict(embedding, POINTS, LABELS)
    with pytest.raises(BackendError, match="closed"):
        model.encode(IMAGE)


def test_several_threads(toy_model: Model) -> None:
    def segment(seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        size = random.integers(10, 90, 2)
        embedding = toy_model.encode(random.integers(0, 256, (*size, 3), dtype=np.uint8))
        result = toy_model.predict(embedding, random.random((1, 2)) * size.min(), [1])
        return result.masks, result.low_res_masks

    alone = [segment(seed) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(segment, range(24)))
    for (masks, low_res), (other_masks, other_low_res) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(masks, other_masks)
        np.testing.assert_array_equal(low_res, other_low_res)


def test_import_is_quick_and_predicting_needs_no_torch(toy_bundle: Path) -> None:
    code = f"""
import sys, samrt
heavy = {{"numpy", "cv2", "PIL", "onnxruntime", "torch", "onnx"}} & set(sys.modules)
assert not heavy, heavy
assert {{"load", "SamPredictor", "__version__"}} <= set(dir(samrt)), dir(samrt)
assert samrt.__version__.count(".") == 2
import numpy
model = samrt.load({str(toy_bundle)!r})
masks = model.predict(model.encode(numpy.zeros((9, 9), numpy.uint8)), [[4, 4]], [1]).masks
assert masks.shape == (3, 9, 9)
assert not {{"torch", "onnx"}} & set(sys.modules)
try:
    samrt.nonsense
except AttributeError as error:
    assert "no attribute 'nonsense'" in str(error)
else:
    raise SystemExit("samrt.nonsense exists")
for name in samrt.__all__:
    getattr(samrt, name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_precision_and_threads_are_chosen(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = open_bundle(own_bundle).manifest.forms[0]
    rewrite_manifest(own_bundle, forms=(form, replace(form, precision="fp16")))
    with samrt.load(own_bundle) as model:
        assert model.choice.form.precision == "fp32"
    opened: list[int] = []
    session_options = onnxruntime_backend._session_options

    def watched(threads: int | None) -> Any:
        options = session_options(threads)
        opened.append(options.intra_op_num_threads)
        return options

    monkeypatch.setattr(onnxruntime_backend, "_session_options", watched)
    with samrt.load(own_bundle, precision="fp16", threads=1) as model:
        assert model.choice.form.precision == "fp16"
        assert model.encode(IMAGE).original_size == SIZE
    assert opened == [1, 1]


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2", 10**6])
def test_threads_must_be_a_count(toy_bundle: Path, threads: Any) -> None:
    with pytest.raises(InputError, match="threads must be a whole number from 1 to"):
        samrt.load(toy_bundle, threads=threads)


def test_a_precision_that_is_not_there(toy_bundle: Path) -> None:
    with pytest.raises(BackendError, match=r"has no form of precision fp16, it holds fp32-dense; .*export"):
        samrt.load(toy_bundle, precision="fp16")
    with pytest.raises(InputError, match="there is no precision 'int3'; choose one of fp32, fp16"):
        samrt.load(toy_bundle, precision="int3")


def test_a_precision_that_only_tensorrt_runs(own_bundle: Path) -> None:
    form = open_bundle(own_bundle).manifest.forms[0]
    rewrite_manifest(own_bundle, forms=(form, replace(form, precision="fp16", lowering="plugin")))
    with pytest.raises(BackendError, match="holds fp16-plugin only in fp16, whose attention is a plugin"):
        samrt.load(own_bundle, precision="fp16")
