"""The TensorRT backend on the driver of `libcuda.c`, with a TensorRT that computes with ONNX Runtime; `outside.py`."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver
from hostcuda.fake_tensorrt import Context, Engine, RuntimeCache, RuntimeConfig, fake_flavour, write_plan
from hostcuda.inside import CaiArray, DlpackArray, alive, counts, current, fail_captures, fail_waits, limit_memory
from toy_bundle import STRIDE, C, S, write_toy_bundle

from samrt.backends import capture, tensorrt
from samrt.backends.jit_cache import JitCache, cache_folder
from samrt.backends.onnxruntime import OnnxRuntimeEngine
from samrt.backends.tensorrt import TensorRtEngine
from samrt.cuda import DeviceOptions, DeviceSession
from samrt.device_array import DeviceArray
from samrt.errors import BackendError, InputError
from samrt.manifest import contract_graph

LARGEST = {"batch": 2, "prompts": 3, "points": 4}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Plans, graphs and references of both graphs of a toy bundle."""
    folder = tmp_path_factory.mktemp("toy")
    bundle = write_toy_bundle(folder / "bundle")
    side = S // STRIDE
    graphs = {
        name: contract_graph(name, f"{name}.onnx", S, (C, side, side), 4 * side) for name in ("encoder", "decoder")
    }
    files = {name: bundle / graph.file for name, graph in graphs.items()}
    return SimpleNamespace(
        graphs=graphs,
        plans={name: write_plan(folder / f"{name}.plan", files[name], graphs[name], LARGEST) for name in graphs},
        reference={name: OnnxRuntimeEngine(files[name]) for name in graphs},
    )


@pytest.fixture
def session() -> Iterator[DeviceSession]:
    with DeviceSession() as opened:
        yield opened


def _open(toy: Any, name: str, session: DeviceSession, *, rtx: bool = False, cuda_graphs: bool = True) -> Any:
    flavour = fake_flavour(rtx=rtx)
    engine = TensorRtEngine(toy.plans[name], toy.graphs[name], flavour, session, cuda_graphs)
    engine.fake = flavour.module.engines[-1]  # type: ignore[attr-defined]
    return engine


@pytest.fixture(params=["graphs", "plain", "rtx"])
def decoder(toy: Any, session: DeviceSession, request: pytest.FixtureRequest) -> Iterator[Any]:
    engine = _open(toy, "decoder", session, rtx=request.param == "rtx", cuda_graphs=request.param != "plain")
    yield engine
    engine.close()


def _image(seed: int = 0, batch: int = 1) -> dict[str, Any]:
    return {"image": np.random.default_rng(seed).standard_normal((batch, 3, S, S)).astype(np.float32)}


def _prompts(toy: Any, prompts: int = 1, points: int = 2, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = {tensor.name: tensor.shape for tensor in toy.graphs["decoder"].inputs}
    lengths = {"prompts": prompts, "points": points}
    arrays = {
        name: rng.standard_normal([lengths.get(n, n) for n in shape]).astype(np.float32)
        for name, shape in shapes.items()
    }
    arrays["point_labels"] = rng.integers(-1, 4, (prompts, points)).astype(np.int32)
    return arrays


def _same(result: dict[str, Any], expected: dict[str, Any]) -> None:
    assert result.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(result[name], values)


def test_inputs_and_outputs_are_those_of_the_graph(toy: Any, decoder: Any) -> None:
    assert decoder.inputs == toy.graphs["decoder"].inputs
    assert decoder.outputs == toy.graphs["decoder"].outputs
    assert decoder.limits == {"prompts": 3, "points": 4}


def test_results_are_those_of_onnx_runtime(toy: Any, decoder: Any) -> None:
    # Each shape several times, in between others: graphs are captured and replayed while shapes change.
    for round_ in range(4):
        for prompts, points in ((1, 2), (3, 4), (1, 0), (2, 1)):
            inputs = _prompts(toy, prompts, points, seed=round_)
            _same(decoder.run(inputs), toy.reference["decoder"].run(inputs))


def test_the_encoder_takes_batches(toy: Any, session: DeviceSession) -> None:
    engine = _open(toy, "encoder", session)
    for seed in range(3):
        for batch in (1, 2):
            _same(engine.run(_image(seed, batch)), toy.reference["encoder"].run(_image(seed, batch)))
    engine.close()


def test_results_stay_what_they_were(toy: Any, decoder: Any) -> None:
    inputs = _prompts(toy)
    first = decoder.run(inputs)
    on_device = decoder.run(inputs, on_device=["low_res_masks"])["low_res_masks"]
    decoder.run(_prompts(toy, seed=1))
    _same(first, toy.reference["decoder"].run(inputs))
    np.testing.assert_array_equal(on_device.numpy(), first["low_res_masks"])


def test_a_graph_is_captured_when_a_shape_comes_again(toy: Any, session: DeviceSession) -> None:
    engine = _open(toy, "decoder", session)
    before = counts()
    captured = []
    for seed in range(4):
        engine.run(_prompts(toy, seed=seed))
        now = counts()
        captured.append((now["execs"] - before["execs"], now["launches"] - before["launches"]))
    assert captured == [(0, 0), (1, 0), (1, 1), (1, 2)]
    assert engine.cuda_graphs == "on"
    engine.close()
    assert counts()["execs"] == before["execs"]
    assert counts()["graphs"] == before["graphs"]


def test_few_graphs_are_kept(toy: Any, session: DeviceSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "_GRAPHS", 8)
    engine = _open(toy, "decoder", session)
    before = counts()["execs"]
    shapes = [(prompts, points) for prompts in (1, 2, 3) for points in (1, 2, 3, 4)]
    for _ in range(3):
        for shape in shapes:
            inputs = _prompts(toy, *shape)
            _same(engine.run(inputs), toy.reference["decoder"].run(inputs))
    assert counts()["execs"] - before == 8
    engine.close()
    assert counts()["execs"] == before


def test_without_graphs_none_is_captured(toy: Any, session: DeviceSession) -> None:
    engine = _open(toy, "decoder", session, cuda_graphs=False)
    before = counts()["launches"]
    for _ in range(3):
        engine.run(_prompts(toy))
    assert (engine.cuda_graphs, counts()["launches"]) == ("off", before)
    engine.close()


def test_a_failed_capture_turns_graphs_off(toy: Any, session: DeviceSession, caplog: pytest.LogCaptureFixture) -> None:
    engine = _open(toy, "decoder", session)
    fail_captures(1)
    inputs = _prompts(toy)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            _same(engine.run(inputs), toy.reference["decoder"].run(inputs))
    assert len(caplog.records) == 1
    assert engine.cuda_graphs.startswith("off: capturing failed")
    assert "CAPTURE_INVALIDATED" in engine.cuda_graphs
    engine.close()


def test_a_kernel_that_cannot_be_captured_turns_graphs_off(toy: Any, session: DeviceSession) -> None:
    engine = _open(toy, "decoder", session)
    before = counts()
    for prompts in (1, 2):
        for seed in range(3):
            inputs = _prompts(toy, prompts, seed=seed)
            _same(engine.run(inputs), toy.reference["decoder"].run(inputs))
        assert counts()["execs"] - before["execs"] == 2 - prompts, "the first shape's graph goes with the second's"
        engine.fake.fails_in_captures = True
    assert "a kernel was not to be found" in engine.cuda_graphs
    assert counts()["graphs"] == before["graphs"]
    engine.close()


def test_too_little_memory_for_a_graph_turns_graphs_off(toy: Any, session: DeviceSession) -> None:
    engine = _open(toy, "decoder", session)
    engine.fake.contexts_left = 0
    inputs = _prompts(toy)
    for _ in range(3):
        _same(engine.run(inputs), toy.reference["decoder"].run(inputs))
    assert "no memory for another execution context" in engine.cuda_graphs
    engine.close()


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_default_streams_are_not_captured(toy: Any, stream: int, caplog: pytest.LogCaptureFixture) -> None:
    tensorrt._warn_once.cache_clear()
    with DeviceSession(DeviceOptions(stream=stream)) as session:
        engine = _open(toy, "decoder", session)
        for seed in range(3):
            inputs = _prompts(toy, seed=seed)
            _same(engine.run(inputs), toy.reference["decoder"].run(inputs))
        assert "default stream" in engine.cuda_graphs
        engine.close()
        _open(toy, "encoder", session).close()
    assert [record.getMessage() for record in caplog.records] == [f"CUDA graphs are {engine.cuda_graphs}"]


@pytest.mark.parametrize("kind", ["graphs", "plain", "rtx"])
def test_the_embedding_stays_on_the_gpu(toy: Any, session: DeviceSession, kind: str) -> None:
    how = {"rtx": kind == "rtx", "cuda_graphs": kind != "plain"}
    encoder, decoder = (_open(toy, name, session, **how) for name in ("encoder", "decoder"))
    for seed in range(4):
        embedding = encoder.run(_image(seed), on_device=["image_embeddings"])["image_embeddings"]
        assert isinstance(embedding, DeviceArray)
        prompts = _prompts(toy, seed=seed)
        before = counts()
        result = decoder.run({**prompts, "image_embeddings": embedding})
        moved = {name: counts()[name] - before[name] for name in ("to_device", "to_host", "on_device")}
        # The four inputs of the prompt in, both outputs out; the embedding is copied for the sake of graphs only.
        assert moved == {"to_device": 4, "to_host": 2, "on_device": 0 if kind == "plain" else 1}
        expected = toy.reference["encoder"].run(_image(seed))
        _same(result, toy.reference["decoder"].run({**prompts, **expected}))
    for engine in (encoder, decoder):
        engine.close()


@pytest.mark.parametrize("kind", [CaiArray, DlpackArray])
def test_foreign_arrays_are_read_without_the_host(
    toy: Any, session: DeviceSession, decoder: Any, kind: type[Any]
) -> None:
    for seed in range(4):
        inputs = _prompts(toy, 2, 3, seed=seed)
        foreign = {name: kind(session, values) for name, values in inputs.items()}
        _same(decoder.run(foreign), toy.reference["decoder"].run(inputs))


def test_foreign_arrays_that_are_empty_or_not_aligned_are_read(toy: Any, session: DeviceSession, decoder: Any) -> None:
    inputs = _prompts(toy, 1, 0)
    embedding = inputs["image_embeddings"]
    memory = session.allocate(embedding.nbytes + 4)
    shifted = DeviceArray(memory, embedding.shape, embedding.dtype, offset=4)
    with session.current():
        driver.cuMemcpyHtoD(shifted.ptr, embedding.ctypes.data, embedding.nbytes)
    empty = DeviceArray(session.allocate(0), (1, 0, 2), "float32")
    given = {**inputs, "image_embeddings": shifted, "point_coords": empty}
    _same(decoder.run(given), toy.reference["decoder"].run(inputs))


def test_host_and_device_arrays_may_take_turns(toy: Any, session: DeviceSession, decoder: Any) -> None:
    for seed in range(6):
        inputs = _prompts(toy, seed=seed)
        given = {name: CaiArray(session, values) for name, values in inputs.items()} if seed % 2 else inputs
        _same(decoder.run(given), toy.reference["decoder"].run(inputs))


def test_arrays_on_the_host_may_have_any_layout(toy: Any, decoder: Any) -> None:
    inputs = _prompts(toy, 2, 3)
    given = {name: np.asfortranarray(values) for name, values in inputs.items()}
    given["point_labels"] = given["point_labels"].tolist()
    given["point_labels"] = np.array(given["point_labels"], np.int32)[:, ::-1][:, ::-1]
    _same(decoder.run(given), toy.reference["decoder"].run(inputs))


def test_work_runs_on_the_callers_stream(toy: Any, session: DeviceSession) -> None:
    with session.current():
        stream = driver.cuStreamCreate(1)[1]
    options = DeviceOptions(stream=int(stream))
    with DeviceSession(options) as borrowed:
        engine = _open(toy, "decoder", borrowed)
        for seed in range(4):
            inputs = _prompts(toy, seed=seed)
            # What the caller has put on the stream before comes first, though nobody waits for it.
            memory = session.allocate(inputs["image_embeddings"].nbytes)
            array = DeviceArray(memory, inputs["image_embeddings"].shape, "float32")
            with session.current():
                driver.cuMemcpyAsync(array.ptr, inputs["image_embeddings"].ctypes.data, array.nbytes, stream)
            _same(
                engine.run({**inputs, "image_embeddings": array}),
                toy.reference["decoder"].run(inputs),
            )
        engine.close()
    driver.cuStreamDestroy(stream)


@pytest.mark.parametrize("fixed", [True, False])
def test_an_axis_of_one_length_keeps_its_name_and_limit(
    toy: Any, session: DeviceSession, tmp_path: Path, fixed: bool
) -> None:
    for name, limits in (("encoder", {"batch": 1}), ("decoder", {"prompts": 1, "points": 4})):
        graph, onnx = toy.graphs[name], toy.plans[name].parent / "bundle" / f"{name}.onnx"
        plan = write_plan(tmp_path / f"{name}.plan", onnx, graph, {**LARGEST, **limits}, reports_fixed=fixed)
        flavour = fake_flavour()
        engine = TensorRtEngine(plan, graph, flavour, session)
        shape = flavour.module.engines[-1].get_tensor_shape(graph.outputs[0].name)
        assert shape[0] == (1 if fixed else -1), "the stand-in reports what this is about"
        assert (engine.inputs, engine.outputs, engine.limits) == (graph.inputs, graph.outputs, limits)
        inputs = _image() if name == "encoder" else _prompts(toy)
        for _ in range(3):
            _same(engine.run(inputs), toy.reference[name].run(inputs))
        too_many = _image(batch=2) if name == "encoder" else _prompts(toy, 2)
        with pytest.raises(InputError, match=r"this engine takes at most 1; .*samrt build --max-(batch|prompts) 2"):
            engine.run(too_many)
        engine.close()


@pytest.mark.parametrize(
    ("prompts", "points", "message"),
    [
        (1, 5, r"point_coords has 5 points.* at most 4.*`samrt build --max-points 5`"),
        (4, 1, r"point_coords has 4 prompts.* at most 3.*`samrt build --max-prompts 4`"),
        (0, 1, "point_coords has 0 prompts, the engine takes at least 1"),
    ],
)
def test_more_than_the_engine_takes_is_refused(toy: Any, decoder: Any, prompts: int, points: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decoder.run(_prompts(toy, prompts, points))
    decoder.run(_prompts(toy))


def test_wrong_inputs_are_refused(toy: Any, decoder: Any) -> None:
    inputs = _prompts(toy, 2, 2)
    wrong = {
        "takes the inputs": {"point_coords": inputs["point_coords"]},
        "point_labels must be int32, not int64": {**inputs, "point_labels": inputs["point_labels"].astype(np.int64)},
        r"mask_input must have the shape \[prompts, 1, 64, 64\]": {**inputs, "mask_input": inputs["mask_input"][0]},
        r"image_embeddings must have the shape \[1, 8, 16, 16\]": {
            **inputs,
            "image_embeddings": inputs["image_embeddings"][:, :4],
        },
        "has_mask_input has 1 prompts, point_coords has 2": {**inputs, "has_mask_input": np.ones(1, np.float32)},
    }
    for message, given in wrong.items():
        with pytest.raises(InputError, match=message):
            decoder.run(given)
    with pytest.raises(InputError, match="no output masks"):
        decoder.run(inputs, on_device=["masks"])


def test_a_failure_says_what_tensorrt_said(toy: Any, session: DeviceSession, decoder: Any) -> None:
    inputs = _prompts(toy)
    decoder.run(inputs)
    decoder.fake.fails = True
    with pytest.raises(BackendError, match="a kernel was not to be found"):
        decoder.run(inputs)
    done = counts()
    with session.current():
        session.synchronize()
    assert counts() == done, "nothing is left that would read the inputs"
    decoder.fake.fails = False
    _same(decoder.run(inputs), toy.reference["decoder"].run(inputs))


def test_what_is_no_array_is_refused(toy: Any, decoder: Any) -> None:
    class NeedsAGradient:
        def __array__(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("call detach() first")

    class OfAnotherType:
        def __dlpack_device__(self) -> tuple[int, int]:
            raise ValueError("it is nowhere")

        def __array__(self, *_: Any, **__: Any) -> Any:
            raise TypeError("there is no bfloat16 here")

    cases = [
        (NeedsAGradient(), r"has_mask_input cannot be read .*detach\(\) first; hand in a plain float32 array"),
        (OfAnotherType(), "has_mask_input cannot be read .*no bfloat16 here"),
        ([[1.0], [1.0, 2.0]], "has_mask_input cannot be read .*inhomogeneous"),
    ]
    for given, message in cases:
        with pytest.raises(InputError, match=message):
            decoder.run({**_prompts(toy), "has_mask_input": given})


def test_work_that_failed_on_the_gpu_is_an_error(toy: Any, decoder: Any) -> None:
    inputs = _prompts(toy)
    for _ in range(3):
        fail_waits(1)
        with pytest.raises(BackendError, match=r"work on the GPU failed with CUDA_ERROR_LAUNCH_FAILED; .*start again"):
            decoder.run(inputs)
        _same(decoder.run(inputs), toy.reference["decoder"].run(inputs))


def test_a_refused_address_is_an_error(
    toy: Any, session: DeviceSession, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = _prompts(toy)
    foreign = {name: CaiArray(session, values) for name, values in inputs.items()}
    accept = Context.set_tensor_address
    accepted: list[str] = []

    def refuse_after(context: Context, name: str, address: int) -> bool:
        accepted.append(name)
        return len(accepted) < 3 and accept(context, name, address)

    reads_in_place = decoder.cuda_graphs == "off"
    with monkeypatch.context() as patch:
        patch.setattr(Context, "set_tensor_address", refuse_after)
        if reads_in_place:
            with pytest.raises(BackendError, match=r"refuses the address of \w+: it gave no reason"):
                decoder.run(foreign)
        with pytest.raises(BackendError, match="refuses the address of"):
            _open(toy, "decoder", session)
    # What of the addresses was taken before the refusal is not left behind.
    other = _prompts(toy, seed=1)
    _same(decoder.run(other), toy.reference["decoder"].run(other))


def test_a_refused_address_for_a_graph_turns_graphs_off(
    toy: Any, session: DeviceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _open(toy, "decoder", session)
    inputs = _prompts(toy)
    with monkeypatch.context() as patch:
        patch.setattr(Context, "set_tensor_address", lambda *_: False)
        for _ in range(3):
            _same(engine.run(inputs), toy.reference["decoder"].run(inputs))
    assert "refuses the address" in engine.cuda_graphs
    engine.close()


def test_errors_are_those_of_the_thread_that_met_them(toy: Any, session: DeviceSession) -> None:
    flavour = fake_flavour()
    engine = TensorRtEngine(toy.plans["decoder"], toy.graphs["decoder"], flavour, session)
    fake = flavour.module.engines[-1]
    enqueue, logger = Context.execute_async_v3, fake.logger

    def disturbed(context: Context, stream: int) -> bool:
        # Another engine's thread reports something while this one fails.
        threads = [threading.Thread(target=logger.log, args=(logger.Severity.ERROR, "of another engine"))]
        threads[0].start()
        threads[0].join()
        return enqueue(context, stream)

    fake.fails = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Context, "execute_async_v3", disturbed)
        with pytest.raises(BackendError) as caught:
            engine.run(_prompts(toy))
    assert "a kernel was not to be found" in str(caught.value)
    assert "of another engine" not in str(caught.value)
    engine.close()


@pytest.mark.parametrize("error", [TypeError("no such overload"), OSError(5, "input/output"), MemoryError()])
def test_what_the_bindings_raise_while_loading_is_a_backend_error(
    toy: Any, session: DeviceSession, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    gc.collect()
    before = alive()
    for kind, name, message in (
        (Engine, "__init__", r"TensorRT 0 cannot load decoder\.plan"),
        (Engine, "create_execution_context", r"TensorRT 0 cannot set up decoder\.plan"),
        (Engine, "get_tensor_shape", r"TensorRT 0 cannot set up decoder\.plan"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(kind, name, fail)
            with pytest.raises(BackendError, match=message):
                _open(toy, "decoder", session)
    gc.collect()
    assert alive() == before


def test_plans_that_cannot_be_loaded_are_refused(toy: Any, session: DeviceSession, tmp_path: Path) -> None:
    before = alive()
    damaged, empty, elsewhere = (tmp_path / name for name in ("damaged.plan", "empty.plan", "elsewhere.plan"))
    damaged.write_bytes(b"no plan")
    empty.touch()
    elsewhere.write_bytes(b"other gpu")
    cases = [
        (damaged, False, r"cannot load damaged\.plan: the plan has a wrong magic tag; build the engine again"),
        (damaged, True, "no engine of TensorRT-RTX, or damaged"),
        (elsewhere, True, r"built for other compute capabilities.*samrt build"),
        (empty, False, "cannot read the engine"),
        (tmp_path / "absent.plan", True, "cannot read the engine"),
    ]
    for path, rtx, message in cases:
        with pytest.raises(BackendError, match=message):
            TensorRtEngine(path, toy.graphs["decoder"], fake_flavour(rtx=rtx), session)
    assert alive() == before


def test_too_little_memory_to_load_leaves_nothing_behind(toy: Any, session: DeviceSession) -> None:
    before = alive()
    limit_memory(before["bytes"] + 20_000)
    try:
        with pytest.raises(BackendError, match="OUT_OF_MEMORY"):
            _open(toy, "decoder", session)
    finally:
        limit_memory(1 << 30)
    gc.collect()
    assert alive() == before


def test_closing_gives_back_everything_but_the_results(toy: Any, session: DeviceSession) -> None:
    before = alive()
    engine = _open(toy, "decoder", session)
    for _ in range(3):
        result = engine.run(_prompts(toy), on_device=["low_res_masks"])["low_res_masks"]
    engine.close()
    engine.close()
    assert alive()["device"] == before["device"] + 1
    assert np.isfinite(result.numpy()).all()
    with pytest.raises(BackendError, match="closed"):
        engine.run(_prompts(toy))
    del result
    # The session's stream for capturing stays.
    assert alive() == {**before, "streams": before["streams"] + 1}


@pytest.mark.parametrize("rtx", [False, True])
def test_a_session_that_is_closed_first_ends_its_engines(toy: Any, rtx: bool) -> None:
    before = alive()
    session = DeviceSession()
    engine = _open(toy, "decoder", session, rtx=rtx)
    for _ in range(3):
        engine.run(_prompts(toy))
    session.close()
    calls = counts()["calls"]
    with pytest.raises(BackendError, match="this model is closed"):
        engine.run(_prompts(toy))
    with pytest.raises(BackendError, match="this model is closed"):
        _open(toy, "decoder", session)
    engine.close()
    assert counts()["calls"] == calls, "nothing was put on the stream that is gone"
    gc.collect()
    assert alive() == before


def test_closing_goes_on_where_saving_fails(toy: Any, session: DeviceSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: JitCache) -> None:
        raise KeyboardInterrupt

    before = alive()
    engine = _open(toy, "decoder", session, rtx=True)
    engine.run(_prompts(toy))
    monkeypatch.setattr(JitCache, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        engine.close()
    assert alive() == before
    engine.close()


def test_an_engine_that_is_dropped_gives_back_everything(toy: Any, session: DeviceSession) -> None:
    before = alive()
    engine = _open(toy, "decoder", session)
    for _ in range(3):
        engine.run(_prompts(toy))
    del engine
    gc.collect()
    assert alive() == {**before, "streams": before["streams"] + 1}


def test_a_thousand_loads_leave_nothing_behind(toy: Any) -> None:
    before = alive()
    for load in range(1000):
        with DeviceSession() as session:
            engine = _open(toy, "encoder", session, rtx=load % 2 == 1)
            for _ in range(3 if load % 50 == 0 else 0):
                engine.run(_image(), on_device=["image_embeddings"] * (load % 100 == 0))
            engine.close()
    gc.collect()
    assert alive() == before
    assert current() == 0


def _run_in_threads(functions: list[Any]) -> None:
    failures: list[BaseException] = []

    def guarded(function: Any) -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_sessions_run_in_threads_of_their_own(toy: Any) -> None:
    before = alive()

    def work(seed: int) -> None:
        with DeviceSession(DeviceOptions(device=seed % 2)) as session:
            encoder, decoder = (_open(toy, name, session) for name in ("encoder", "decoder"))
            for turn in range(20):
                embedding = encoder.run(_image(seed + turn), on_device=["image_embeddings"])
                prompts = _prompts(toy, 1 + turn % 3, turn % 5, seed=seed)
                expected = toy.reference["encoder"].run(_image(seed + turn))
                _same(decoder.run({**prompts, **embedding}), toy.reference["decoder"].run({**prompts, **expected}))
            encoder.close()
            decoder.close()

    _run_in_threads([lambda seed=seed: work(seed) for seed in range(4)])
    gc.collect()
    assert alive() == before


def test_one_session_serves_several_threads(toy: Any, session: DeviceSession) -> None:
    encoder, decoder = (_open(toy, name, session) for name in ("encoder", "decoder"))

    def encode(seed: int) -> None:
        for turn in range(20):
            _same(encoder.run(_image(seed + turn)), toy.reference["encoder"].run(_image(seed + turn)))

    def decode(seed: int) -> None:
        for turn in range(20):
            inputs = _prompts(toy, 1 + turn % 3, turn % 5, seed=seed)
            _same(decoder.run(inputs), toy.reference["decoder"].run(inputs))

    _run_in_threads([lambda f=f, seed=seed: f(seed) for seed in range(2) for f in (encode, decode)])
    encoder.close()
    decoder.close()


def _jit_files() -> list[Path]:
    return sorted(cache_folder().glob("*"))


def test_what_tensorrt_rtx_compiled_is_kept(
    toy: Any, session: DeviceSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    engine = _open(toy, "decoder", session, rtx=True)
    assert _jit_files() == []
    engine.run(_prompts(toy))
    (file,) = _jit_files()
    first = file.read_bytes()
    assert file.name.endswith("-host-memory-0-8-7.jit")
    engine.run(_prompts(toy, 2))
    engine.close()
    assert len(file.read_bytes()) > len(first)

    again = _open(toy, "decoder", session, rtx=True)
    written = file.stat().st_mtime_ns
    again.run(_prompts(toy, 2))
    again.close()
    assert file.stat().st_mtime_ns == written, "nothing new was compiled"
    assert _jit_files() == [file]


@pytest.mark.parametrize("harm", ["damaged", "no folder", "no home", "refused", "not serialised"])
def test_a_useless_cache_is_no_error(
    toy: Any, session: DeviceSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if harm == "damaged":
        engine = _open(toy, "decoder", session, rtx=True)
        engine.run(_prompts(toy))
        engine.close()
        _jit_files()[0].write_bytes(b"\0 damaged")
    elif harm == "no folder":
        (tmp_path / "cache").write_text("a file")
    elif harm == "refused":
        monkeypatch.setattr(RuntimeConfig, "set_runtime_cache", lambda config, _: setattr(config, "cache", _) or False)
    elif harm == "not serialised":
        monkeypatch.setattr(RuntimeCache, "serialize", lambda _: {}["lost"])
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    for _ in range(2):
        engine = _open(toy, "decoder", session, rtx=True)
        _same(engine.run(_prompts(toy)), toy.reference["decoder"].run(_prompts(toy)))
        engine.close()
    if harm == "damaged":
        assert _jit_files()[0].read_bytes().startswith(b"[")
    elif harm in ("refused", "not serialised"):
        assert _jit_files() == []


def test_tensorrt_rtx_captures_by_itself(toy: Any, session: DeviceSession) -> None:
    engine = _open(toy, "decoder", session, rtx=True)
    before = counts()["launches"]
    for _ in range(3):
        engine.run(_prompts(toy))
    assert engine._context.config.cuda_graph_strategy == "whole"
    assert (engine.cuda_graphs, counts()["launches"]) == ("left to TensorRT-RTX", before)
    engine.close()
    plain = _open(toy, "decoder", session, rtx=True, cuda_graphs=False)
    assert plain._context.config.cuda_graph_strategy == "disabled"
    plain.close()
