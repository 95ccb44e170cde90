"""An engine of each graph of a toy bundle, for the checks of the TensorRT backend; `outside.py`."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from contracts import sam_graph
from hostcuda.fake_tensorrt import fake_flavour, write_plan
from toy_bundle import STRIDE, C, S, write_toy_bundle

from samrt.backends.onnxruntime import OnnxRuntimeEngine
from samrt.backends.tensorrt.engine import TensorRtEngine
from samrt.bundle.contract import IMAGE_ENCODER, MASK_DECODER
from samrt.device.session import DeviceSession

LARGEST = {"batch": 2, "prompts": 3, "points": 4}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Plans, graphs and references of both graphs of a toy bundle."""
    folder = tmp_path_factory.mktemp("toy")
    bundle = write_toy_bundle(folder / "bundle")
    side = S // STRIDE
    roles = {"encoder": IMAGE_ENCODER, "decoder": MASK_DECODER}
    graphs = {name: sam_graph(role, f"{name}.onnx", S, (C, side, side)) for name, role in roles.items()}
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


def open_engine(toy: Any, name: str, session: DeviceSession, *, rtx: bool = False, cuda_graphs: bool = True) -> Any:
    flavour = fake_flavour(rtx=rtx)
    engine = TensorRtEngine(toy.plans[name], toy.graphs[name], flavour, session, cuda_graphs)
    engine.fake = flavour.module.engines[-1]  # type: ignore[attr-defined]
    return engine


@pytest.fixture(params=["graphs", "plain", "rtx"])
def decoder(toy: Any, session: DeviceSession, request: pytest.FixtureRequest) -> Iterator[Any]:
    engine = open_engine(toy, "decoder", session, rtx=request.param == "rtx", cuda_graphs=request.param != "plain")
    yield engine
    engine.close()


def an_image(seed: int = 0, batch: int = 1) -> dict[str, Any]:
    return {"image": np.random.default_rng(seed).standard_normal((batch, 3, S, S)).astype(np.float32)}


def prompts_for(toy: Any, prompts: int = 1, points: int = 2, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = {tensor.name: tensor.shape for tensor in toy.graphs["decoder"].inputs}
    lengths = {"prompts": prompts, "points": points}
    arrays = {
        name: rng.standard_normal([lengths.get(n, n) for n in shape]).astype(np.float32)
        for name, shape in shapes.items()
    }
    arrays["point_labels"] = rng.integers(-1, 4, (prompts, points)).astype(np.int32)
    return arrays


def same(result: dict[str, Any], expected: dict[str, Any]) -> None:
    assert result.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(result[name], values)
