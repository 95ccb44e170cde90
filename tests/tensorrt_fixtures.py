"""Fixtures for building with the TensorRT-RTX that is installed; a test file takes them with `pytest_plugins`."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from seeded import SMALL_VIT, seeded_state

import samrt.device.gpus
import samrt.engines.builder.bundle
from samrt.bundle.contract import Graph, Tensor
from samrt.engines.builder.engine import build_engine
from samrt.engines.flavours import Flavour, import_flavour

# Large enough for the chunked lowering to take its global layer in several steps.
VIT = replace(SMALL_VIT, image_size=320, depth=2, window_size=6, global_blocks=(1,))


@pytest.fixture(scope="session")
def rtx() -> Flavour:
    pytest.importorskip("tensorrt_rtx")
    return import_flavour("tensorrt_rtx")


@pytest.fixture(autouse=True)
def collected(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test leaves of TensorRT-RTX is freed after it, not in a later call (`samrt.engines.builder.engine`)."""
    yield
    if "rtx" in request.fixturenames:
        gc.collect()


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is found, whatever this machine has, and engines are built in this process, for which that holds."""
    for module in (samrt.device.gpus, samrt.engines.builder.bundle):
        monkeypatch.setattr(module, "find_gpus", lambda: [])
    build_here(monkeypatch)


def build_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `build_bundle` build in this process, where stand-ins are; `test_child_builds.py` is about the child."""
    monkeypatch.setattr(samrt.engines.builder.bundle, "build_in_child", lambda *given: build_engine(*given[:5]))


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Graph]]:
    """A function from a lowering to the encoder of `VIT` in that form, exported once."""
    made: dict[str, tuple[Path, Graph]] = {}

    def encoder(lowering: str) -> tuple[Path, Graph]:
        if lowering not in made:
            made[lowering] = _export(tmp_path_factory.mktemp(lowering), lowering)
        return made[lowering]

    return encoder


def _export(folder: Path, lowering: str) -> tuple[Path, Graph]:
    import torch

    from samrt_export.lowering import lower
    from samrt_export.models.image_encoder_vit import ImageEncoderViT
    from samrt_export.onnx_export import export_graph

    module = ImageEncoderViT(VIT)
    module.load_state_dict(seeded_state(module, seed=0))
    module.eval().requires_grad_(False)
    lower(module, lowering)
    S, h = VIT.image_size, VIT.grid
    graph = Graph(
        "encoder.onnx",
        (Tensor("image", "float32", ("batch", 3, S, S)),),
        (Tensor("image_embeddings", "float32", ("batch", VIT.out_chans, h, h)),),
    )
    export_graph(module, graph, (torch.zeros(2, 3, S, S),), folder, "encoder.weights")
    return folder / graph.file, graph
