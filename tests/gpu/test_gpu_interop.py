"""Arrays and streams of torch, CuPy and PyCUDA, with the real packages on a real GPU."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_graphs import build, doubling

from samrt.backends.tensorrt.engine import TensorRtEngine
from samrt.device.session import DeviceOptions, DeviceSession
from samrt.engines.flavours import Flavour
from samrt.engines.profiles import BuildLimits
from samrt.errors import InputError

X = np.random.default_rng(0).standard_normal((3, 1024)).astype(np.float32)


@pytest.fixture(scope="module")
def model(flavour: Flavour, tmp_path_factory: pytest.TempPathFactory) -> Any:
    plan, graph = build(flavour, doubling(tmp_path_factory.mktemp("interop")), BuildLimits(max_batch=4))
    return lambda session, cuda_graphs: TensorRtEngine(plan, graph, flavour, session, cuda_graphs)


@pytest.fixture(params=[True, False], ids=["graphs", "plain"])
def engine(model: Any, session: DeviceSession, request: pytest.FixtureRequest) -> Iterator[Any]:
    opened = model(session, request.param)
    yield opened
    opened.close()


def _torch() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    return torch


def test_torch_tensors_come_in_and_go_out_without_a_copy(engine: Any) -> None:
    torch = _torch()
    for turn in range(4):
        # Busy work first: the engine must wait for the tensor's stream.
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            big = torch.randn(4096, 4096, device="cuda")
            for _ in range(10):
                big = big @ big / 4096
            x = torch.from_numpy(X).cuda() + turn + 0 * big[0, 0]
            y = engine.run({"x": x}, on_device=["y"])["y"]
        result = torch.from_dlpack(y)
        assert result.data_ptr() == y.ptr
        np.testing.assert_allclose(result.cpu().numpy(), 2 * (X + turn), rtol=1e-6)


def test_torch_keeps_the_memory_of_an_output(engine: Any) -> None:
    torch = _torch()
    y = engine.run({"x": X}, on_device=["y"])["y"]
    result = torch.from_dlpack(y)
    y.close()
    del y
    engine.run({"x": 0 * X}, on_device=["y"])
    np.testing.assert_array_equal(result.cpu().numpy(), 2 * X)


def test_cupy_arrays_come_in_and_go_out_without_a_copy(engine: Any) -> None:
    cupy = pytest.importorskip("cupy")
    for turn in range(4):
        y = engine.run({"x": cupy.asarray(X) + np.float32(turn)}, on_device=["y"])["y"]
        result = cupy.asarray(y)
        assert result.data.ptr == y.ptr
        np.testing.assert_array_equal(cupy.asnumpy(result), 2 * (X + np.float32(turn)))


def test_arrays_that_are_not_contiguous_are_refused(engine: Any) -> None:
    torch = _torch()
    with pytest.raises(InputError, match="not C-contiguous"):
        engine.run({"x": torch.ones(1024, 3, device="cuda").T})


def test_pycuda_arrays_come_in_without_a_copy(engine: Any) -> None:
    pytest.importorskip("pycuda")
    importlib.import_module("pycuda.autoprimaryctx")
    gpuarray = importlib.import_module("pycuda.gpuarray")
    for turn in range(4):
        # A kernel on the default stream, which the engine must wait for.
        x = gpuarray.to_gpu(X) + np.float32(turn)
        np.testing.assert_array_equal(engine.run({"x": x})["y"], 2 * (X + np.float32(turn)))


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_work_runs_on_a_stream_of_torch(model: Any, cuda_graphs: bool) -> None:
    torch = _torch()
    stream = torch.cuda.Stream()
    with DeviceSession(DeviceOptions(stream=stream)) as session:
        assert session.stream == stream.cuda_stream
        engine = model(session, cuda_graphs)
        for turn in range(4):
            np.testing.assert_array_equal(engine.run({"x": X + np.float32(turn)})["y"], 2 * (X + np.float32(turn)))
        engine.close()
    stream.synchronize()


def test_work_runs_on_a_stream_of_cupy(model: Any) -> None:
    cupy = pytest.importorskip("cupy")
    stream = cupy.cuda.Stream(non_blocking=True)
    with DeviceSession(DeviceOptions(stream=stream)) as session:
        engine = model(session, True)
        for _ in range(4):
            np.testing.assert_array_equal(engine.run({"x": X})["y"], 2 * X)
        engine.close()


def test_sessions_run_in_threads_of_their_own(model: Any) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            with DeviceSession() as session:
                engine = model(session, True)
                for turn in range(50):
                    x = np.full((1 + turn % 4, 1024), seed + turn, np.float32)
                    np.testing.assert_array_equal(engine.run({"x": x})["y"], 2 * x)
                engine.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_plans_stay_where_they_are(model: Any, session: DeviceSession, tmp_path: Path) -> None:
    # The plan is mapped while it is read only: two engines of it run side by side.
    first, second = model(session, True), model(session, True)
    for engine in (first, second, first, second):
        np.testing.assert_array_equal(engine.run({"x": X})["y"], 2 * X)
    first.close()
    np.testing.assert_array_equal(second.run({"x": X})["y"], 2 * X)
    second.close()
