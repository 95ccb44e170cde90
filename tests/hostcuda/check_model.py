"""A bundle with engines through `samrt.load`, on the driver of `libcuda.c` with the stand-in TensorRT; `outside.py`."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts import geometry
from hostcuda.fake_tensorrt import fake_flavour
from hostcuda.inside import CaiArray, DlpackArray, alive, counts
from hostcuda.written_engines import write_engines
from toy_bundle import C, S, write_toy_bundle

import samrt
from samrt.backends import session as backends
from samrt.backends.session import Session
from samrt.bundle.contract import ROLES
from samrt.device.array import DeviceArray
from samrt.device.gpus import find_gpus
from samrt.device.session import DeviceOptions, DeviceSession
from samrt.engines import selection
from samrt.engines.manifest import platform_name
from samrt.engines.profiles import BuildLimits
from samrt.errors import BackendError, InputError
from samrt.geometry import normalize_and_pad, resize_image
from samrt.model import Model

# The defaults, but for fewer points: the batch has one length only.
LIMITS = BuildLimits(max_batch=1, max_prompts=2, max_points=5)
RANDOM = np.random.default_rng(0)
IMAGES = [RANDOM.integers(0, 256, size, dtype=np.uint8) for size in ((40, 90, 3), (64, 64, 3), (200, 30, 3))]
IMAGE, SIZE, INPUT = IMAGES[0], (40, 90), (28, 64)
POINTS, LABELS, BOX = [[30.0, 20.0], [70.0, 5.0]], [1, 0], [10.0, 5.0, 60.0, 35.0]
FLAVOURS = ["tensorrt", "tensorrt_rtx"]

Load = Callable[..., Model]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same bundle in ONNX Runtime."""
    return samrt.load(write_toy_bundle(tmp_path_factory.mktemp("reference") / "bundle"))


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a toy bundle with engines of a flavour, on a machine where only that is installed."""

    def load_(backend: str = "tensorrt", limits: BuildLimits = LIMITS, options: DeviceOptions | None = None) -> Model:
        bundle = write_toy_bundle(tmp_path / backend)
        write_engines(bundle, backend, limits)
        machine = selection.Machine(platform_name(), find_gpus()[0], {backend: "0"}, {})
        monkeypatch.setattr(selection, "this_machine", lambda *_, **__: machine)
        flavour = fake_flavour(rtx=backend == "tensorrt_rtx")
        monkeypatch.setattr(backends, "import_flavour", lambda _: flavour)
        return samrt.load(bundle, device_options=options)

    return load_


def feature(embedding: samrt.Embedding) -> Any:
    return embedding.features["image_embeddings"]


def _prepared(image: Any = IMAGE) -> Any:
    return normalize_and_pad(resize_image(image, geometry(S)), geometry(S))


def _same(result: Any, expected: Any) -> None:
    for name in ("masks", "iou_predictions", "low_res_masks"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))


@pytest.mark.parametrize("backend", FLAVOURS)
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_masks_are_those_of_onnx_runtime(load: Load, reference: Model, backend: str, cuda_graphs: bool) -> None:
    with load(backend, options=DeviceOptions(cuda_graphs=cuda_graphs)) as model:
        assert model.backend == backend
        assert model.choice.skipped == ()
        for image in IMAGES * 2:
            embedding, expected = model.encode(image), reference.encode(image)
            assert isinstance(feature(embedding), DeviceArray)
            np.testing.assert_array_equal(feature(embedding).numpy(), feature(expected))
            height, width = image.shape[:2]
            mask = RANDOM.standard_normal((1, S, S)).astype(np.float32)
            for prompt in (
                {"point_coords": [[width / 2, height / 3]], "point_labels": [1]},
                {"box": [1, 1, width - 2, height - 2]},
                {"mask_input": mask},
                {"scribble": samrt.Scribble([[[width / 2, height / 2]]])},
            ):
                _same(model.predict(embedding, **prompt), reference.predict(expected, **prompt))  # type: ignore[arg-type]


def test_prompts_are_split_by_what_the_engine_takes(load: Load, reference: Model) -> None:
    boxes = np.array([BOX, [0, 0, 20, 20], [5, 1, 80, 30], [40, 9, 70, 39], BOX])
    with load() as model:
        embedding = model.encode(IMAGE)
        before = counts()["calls"]
        result = model.predict(embedding, box=boxes)
        assert counts()["calls"] - before == 3
        _same(result, reference.predict(reference.encode(IMAGE), box=boxes))


def test_more_points_than_the_engine_takes_are_refused(load: Load) -> None:
    with load() as model:
        points = [[n, n] for n in range(5)]
        with pytest.raises(InputError, match=r"point_coords has 6 points, .* at most 5; .*again with max_points=6"):
            model.predict(model.encode(IMAGE), points, [1] * 5)  # one more is padding


def test_low_res_masks_stay_on_the_gpu_on_request(load: Load, reference: Model) -> None:
    boxes = [BOX, [0, 0, 20, 20]]
    with load() as model:
        embedding = model.encode(IMAGE)
        on_device = model.predict_low_res_on_device(embedding, box=boxes)
        on_host = model.predict_low_res(embedding, box=boxes)
        expected = reference.predict_low_res(reference.encode(IMAGE), box=boxes)
        for array, same, values in zip(on_device, on_host, expected, strict=True):
            assert isinstance(array, DeviceArray)
            assert isinstance(same, np.ndarray)
            np.testing.assert_array_equal(array.numpy(), values)
            np.testing.assert_array_equal(same, values)
        with pytest.raises(InputError, match="2 prompts go at once, not 3; split"):
            model.predict_low_res_on_device(embedding, box=[*boxes, BOX])


def test_an_embedding_on_the_gpu_is_saved_and_read_by_any_backend(load: Load, reference: Model, tmp_path: Path) -> None:
    with load() as model:
        embedding = model.encode(IMAGE)
        embedding.save(tmp_path / "a.npz")
        again = samrt.Embedding.load(tmp_path / "a.npz")
        assert (again.original_size, again.input_size, again.model_id) == (SIZE, INPUT, embedding.model_id)
        expected = reference.predict(reference.encode(IMAGE), POINTS, LABELS)
        for one, its_embedding in ((model, again), (reference, again), (reference, embedding)):
            _same(one.predict(its_embedding, POINTS, LABELS), expected)


@pytest.mark.parametrize("kind", [CaiArray, DlpackArray])
def test_a_prepared_image_on_the_gpu_stays_there(load: Load, reference: Model, kind: type[Any]) -> None:
    with load() as model, DeviceSession() as session:
        expected = reference.encode(IMAGE)
        for _ in range(3):
            image = kind(session, _prepared())
            before = counts()
            embedding = model.encode_prepared(image, SIZE, INPUT)
            # The producer fills its array from the host: one copy. None goes back.
            assert [counts()[name] - before[name] for name in ("to_device", "to_host")] == [1, 0]
            assert isinstance(feature(embedding), DeviceArray)
            np.testing.assert_array_equal(feature(embedding).numpy(), feature(expected))


def test_prepared_images_that_do_not_fit_are_refused(load: Load) -> None:
    with load() as model, DeviceSession() as session:
        array = DeviceArray(session.allocate(4 * 2 * 3 * S * S), (2, 3, S, S), "float32")
        calls = counts()["calls"]
        with pytest.raises(InputError, match=r"must have the shape \[1, 3, 64, 64\], not \[2, 3, 64, 64\]"):
            model.encode_prepared(array, SIZE, INPUT)
        with pytest.raises(InputError, match="the longer side 64, not"):
            model.encode_prepared(array[:1], SIZE, SIZE)
        with pytest.raises(InputError, match="image must be float32, not float64"):
            model.encode_prepared(_prepared().astype(np.float64), SIZE, INPUT)
        with pytest.raises(InputError, match="image cannot be read as a NumPy array"):
            model.encode_prepared([[1.0], [1.0, 2.0]], SIZE, INPUT)
        assert counts()["calls"] == calls


@pytest.mark.parametrize("max_batch", [1, 2, 3])
def test_a_batch_stays_on_the_gpu(load: Load, reference: Model, max_batch: int) -> None:
    with load(limits=replace(LIMITS, max_batch=max_batch)) as model:
        before = counts()
        embeddings = model.encode_batch([*IMAGES, IMAGE])
        assert counts()["calls"] - before["calls"] == -(-4 // max_batch)
        assert counts()["to_host"] == before["to_host"]
        for image, embedding in zip([*IMAGES, IMAGE], embeddings, strict=True):
            expected = reference.encode(image)
            assert isinstance(feature(embedding), DeviceArray)
            assert feature(embedding).shape == (1, C, 16, 16)
            np.testing.assert_array_equal(feature(embedding).numpy(), feature(expected))
            assert (embedding.original_size, embedding.input_size) == (expected.original_size, expected.input_size)
            box = [1, 1, image.shape[1] - 2, image.shape[0] - 2]
            _same(model.predict(embedding, box=box), reference.predict(expected, box=box))


def test_the_predictor_goes_through_the_engines(load: Load, reference: Model) -> None:
    results = []
    with load() as model:
        for one in (model, reference):
            predictor = samrt.SamPredictor(one)
            predictor.set_image(IMAGE)
            results.append(predictor.predict(np.array(POINTS), np.array(LABELS)))
    for array, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("backend", FLAVOURS)
def test_closing_frees_all_but_the_embeddings(load: Load, backend: str) -> None:
    before = alive()
    model = load(backend)
    for image in IMAGES * 2:
        embedding = model.encode(image)
        model.predict(embedding, box=[1, 1, 20, 20])
    model.close()
    model.close()
    assert alive()["device"] == before["device"] + 1
    with pytest.raises(BackendError, match="this model is closed"):
        model.encode(IMAGE)
    with pytest.raises(BackendError, match="this model is closed"):
        model.predict(embedding, box=[1, 1, 20, 20])
    assert np.isfinite(feature(embedding).numpy()).all()
    del embedding
    gc.collect()
    assert alive() == before


def test_an_engine_that_does_not_open_leaves_nothing(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    before = alive()
    monkeypatch.setattr("hostcuda.fake_tensorrt.Context.set_tensor_address", lambda *_: False)
    with pytest.raises(BackendError, match="refuses the address"):
        load()
    gc.collect()
    assert alive() == before


def test_of_two_threads_that_close_the_second_waits() -> None:
    closing, done = threading.Event(), threading.Event()
    order: list[str] = []

    def close_engine() -> None:
        closing.set()
        done.wait(10)
        order.append("engine")

    callbacks = ExitStack()
    callbacks.callback(order.append, "stream")
    callbacks.callback(close_engine)
    session = Session(None, dict.fromkeys(ROLES), callbacks)  # type: ignore[arg-type]

    def close_second() -> None:
        session.close()
        order.append("second returned")

    threads = [threading.Thread(target=session.close), threading.Thread(target=close_second)]
    threads[0].start()
    closing.wait(10)
    threads[1].start()
    threads[1].join(0.2)
    done.set()
    for thread in threads:
        thread.join()
    assert order == ["engine", "stream", "second returned"]
