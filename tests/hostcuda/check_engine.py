"""What the TensorRT backend computes, on the driver of `libcuda.c` with ONNX Runtime for TensorRT; `outside.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver
from hostcuda.engine_fixtures import LARGEST, an_image, open_engine, prompts_for, same
from hostcuda.fake_tensorrt import fake_flavour, write_plan
from hostcuda.inside import CaiArray, DlpackArray, counts

from samrt.backends.tensorrt.engine import TensorRtEngine
from samrt.device.array import DeviceArray
from samrt.device.session import DeviceOptions, DeviceSession
from samrt.errors import InputError

pytest_plugins = ("hostcuda.engine_fixtures",)


def test_inputs_and_outputs_are_those_of_the_graph(toy: Any, decoder: Any) -> None:
    assert decoder.inputs == toy.graphs["decoder"].inputs
    assert decoder.outputs == toy.graphs["decoder"].outputs
    assert decoder.max_lengths == {"prompts": 3, "points": 4}


def test_results_are_those_of_onnx_runtime(toy: Any, decoder: Any) -> None:
    # Each shape several times, in between others: graphs are captured and replayed while shapes change.
    for round_ in range(4):
        for prompts, points in ((1, 2), (3, 4), (1, 0), (2, 1)):
            inputs = prompts_for(toy, prompts, points, seed=round_)
            same(decoder.run(inputs), toy.reference["decoder"].run(inputs))


def test_the_encoder_takes_batches(toy: Any, session: DeviceSession) -> None:
    engine = open_engine(toy, "encoder", session)
    for seed in range(3):
        for batch in (1, 2):
            same(engine.run(an_image(seed, batch)), toy.reference["encoder"].run(an_image(seed, batch)))
    engine.close()


def test_results_stay_what_they_were(toy: Any, decoder: Any) -> None:
    inputs = prompts_for(toy)
    first = decoder.run(inputs)
    on_device = decoder.run(inputs, on_device=["low_res_masks"])["low_res_masks"]
    decoder.run(prompts_for(toy, seed=1))
    same(first, toy.reference["decoder"].run(inputs))
    np.testing.assert_array_equal(on_device.numpy(), first["low_res_masks"])


@pytest.mark.parametrize("kind", ["graphs", "plain", "rtx"])
def test_the_embedding_stays_on_the_gpu(toy: Any, session: DeviceSession, kind: str) -> None:
    how = {"rtx": kind == "rtx", "cuda_graphs": kind != "plain"}
    encoder, decoder = (open_engine(toy, name, session, **how) for name in ("encoder", "decoder"))
    for seed in range(4):
        embedding = encoder.run(an_image(seed), on_device=["image_embeddings"])["image_embeddings"]
        assert isinstance(embedding, DeviceArray)
        prompts = prompts_for(toy, seed=seed)
        before = counts()
        result = decoder.run({**prompts, "image_embeddings": embedding})
        moved = {name: counts()[name] - before[name] for name in ("to_device", "to_host", "on_device")}
        # The four inputs of the prompt in, both outputs out; the embedding is copied for the sake of graphs only.
        assert moved == {"to_device": 4, "to_host": 2, "on_device": 0 if kind == "plain" else 1}
        expected = toy.reference["encoder"].run(an_image(seed))
        same(result, toy.reference["decoder"].run({**prompts, **expected}))
    for engine in (encoder, decoder):
        engine.close()


@pytest.mark.parametrize("kind", [CaiArray, DlpackArray])
def test_foreign_arrays_are_read_without_the_host(
    toy: Any, session: DeviceSession, decoder: Any, kind: type[Any]
) -> None:
    for seed in range(4):
        inputs = prompts_for(toy, 2, 3, seed=seed)
        foreign = {name: kind(session, values) for name, values in inputs.items()}
        same(decoder.run(foreign), toy.reference["decoder"].run(inputs))


def test_foreign_arrays_that_are_empty_or_not_aligned_are_read(toy: Any, session: DeviceSession, decoder: Any) -> None:
    inputs = prompts_for(toy, 1, 0)
    embedding = inputs["image_embeddings"]
    memory = session.allocate(embedding.nbytes + 4)
    shifted = DeviceArray(memory, embedding.shape, embedding.dtype, offset=4)
    with session.current():
        driver.cuMemcpyHtoD(shifted.ptr, embedding.ctypes.data, embedding.nbytes)
    empty = DeviceArray(session.allocate(0), (1, 0, 2), "float32")
    given = {**inputs, "image_embeddings": shifted, "point_coords": empty}
    same(decoder.run(given), toy.reference["decoder"].run(inputs))


def test_host_and_device_arrays_may_take_turns(toy: Any, session: DeviceSession, decoder: Any) -> None:
    for seed in range(6):
        inputs = prompts_for(toy, seed=seed)
        given = {name: CaiArray(session, values) for name, values in inputs.items()} if seed % 2 else inputs
        same(decoder.run(given), toy.reference["decoder"].run(inputs))


def test_arrays_on_the_host_may_have_any_layout(toy: Any, decoder: Any) -> None:
    inputs = prompts_for(toy, 2, 3)
    given = {name: np.asfortranarray(values) for name, values in inputs.items()}
    given["point_labels"] = given["point_labels"].tolist()
    given["point_labels"] = np.array(given["point_labels"], np.int32)[:, ::-1][:, ::-1]
    same(decoder.run(given), toy.reference["decoder"].run(inputs))


def test_work_runs_on_the_callers_stream(toy: Any, session: DeviceSession) -> None:
    with session.current():
        stream = driver.cuStreamCreate(1)[1]
    options = DeviceOptions(stream=int(stream))
    with DeviceSession(options) as borrowed:
        engine = open_engine(toy, "decoder", borrowed)
        for seed in range(4):
            inputs = prompts_for(toy, seed=seed)
            # What the caller has put on the stream before comes first, though nobody waits for it.
            memory = session.allocate(inputs["image_embeddings"].nbytes)
            array = DeviceArray(memory, inputs["image_embeddings"].shape, "float32")
            with session.current():
                driver.cuMemcpyAsync(array.ptr, inputs["image_embeddings"].ctypes.data, array.nbytes, stream)
            same(
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
        assert (engine.inputs, engine.outputs, engine.max_lengths) == (graph.inputs, graph.outputs, limits)
        inputs = an_image() if name == "encoder" else prompts_for(toy)
        for _ in range(3):
            same(engine.run(inputs), toy.reference[name].run(inputs))
        too_many = an_image(batch=2) if name == "encoder" else prompts_for(toy, 2)
        with pytest.raises(InputError, match=r"this engine takes at most 1; .*again with max_(batch|prompts)=2"):
            engine.run(too_many)
        engine.close()
