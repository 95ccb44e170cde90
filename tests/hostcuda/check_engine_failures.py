"""What the TensorRT backend refuses and how it fails, on the driver of `libcuda.c`; `outside.py`."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostcuda.engine_fixtures import open_engine, prompts_for, same
from hostcuda.fake_tensorrt import Context, Engine, fake_flavour
from hostcuda.inside import CaiArray, alive, counts, fail_waits

from samrt.backends.tensorrt.engine import TensorRtEngine
from samrt.device.session import DeviceSession
from samrt.errors import BackendError, InputError

pytest_plugins = ("hostcuda.engine_fixtures",)


@pytest.mark.parametrize(
    ("prompts", "points", "message"),
    [
        (1, 5, r"point_coords has 5 points.* at most 4.*again with max_points=5"),
        (4, 1, r"point_coords has 4 prompts.* at most 3.*again with max_prompts=4"),
        (0, 1, "point_coords has 0 prompts, the engine takes at least 1"),
    ],
)
def test_more_than_the_engine_takes_is_refused(toy: Any, decoder: Any, prompts: int, points: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decoder.run(prompts_for(toy, prompts, points))
    decoder.run(prompts_for(toy))


def test_wrong_inputs_are_refused(toy: Any, decoder: Any) -> None:
    inputs = prompts_for(toy, 2, 2)
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
    inputs = prompts_for(toy)
    decoder.run(inputs)
    decoder.fake.fails = True
    with pytest.raises(BackendError, match="a kernel was not to be found"):
        decoder.run(inputs)
    done = counts()
    with session.current():
        session.synchronize()
    assert counts() == done, "nothing is left that would read the inputs"
    decoder.fake.fails = False
    same(decoder.run(inputs), toy.reference["decoder"].run(inputs))


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
            decoder.run({**prompts_for(toy), "has_mask_input": given})


def test_work_that_failed_on_the_gpu_is_an_error(toy: Any, decoder: Any) -> None:
    inputs = prompts_for(toy)
    for _ in range(3):
        fail_waits(1)
        with pytest.raises(BackendError, match=r"work on the GPU failed with CUDA_ERROR_LAUNCH_FAILED; restart"):
            decoder.run(inputs)
        same(decoder.run(inputs), toy.reference["decoder"].run(inputs))


def test_a_refused_address_is_an_error(
    toy: Any, session: DeviceSession, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = prompts_for(toy)
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
            open_engine(toy, "decoder", session)
    # What of the addresses was taken before the refusal is not left behind.
    other = prompts_for(toy, seed=1)
    same(decoder.run(other), toy.reference["decoder"].run(other))


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
            engine.run(prompts_for(toy))
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
                open_engine(toy, "decoder", session)
    gc.collect()
    assert alive() == before


def test_plans_that_cannot_be_loaded_are_refused(toy: Any, session: DeviceSession, tmp_path: Path) -> None:
    before = alive()
    damaged, empty, elsewhere = (tmp_path / name for name in ("damaged.plan", "empty.plan", "elsewhere.plan"))
    damaged.write_bytes(b"no plan")
    empty.touch()
    elsewhere.write_bytes(b"other gpu")
    cases = [
        (damaged, False, r"cannot load damaged\.plan: the plan has a wrong magic tag; build the engines again"),
        (damaged, True, "no engine of TensorRT-RTX, or damaged"),
        (elsewhere, True, r"built for other compute capabilities.*build the engines again"),
        (empty, False, "cannot read the engine"),
        (tmp_path / "absent.plan", True, "cannot read the engine"),
    ]
    for path, rtx, message in cases:
        with pytest.raises(BackendError, match=message):
            TensorRtEngine(path, toy.graphs["decoder"], fake_flavour(rtx=rtx), session)
    assert alive() == before
