"""Real engines on a GPU against ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_graphs import build, save

from samrt.backends.session import open_session
from samrt.backends.tensorrt.engine import TensorRtEngine
from samrt.bundle.folder import open_bundle
from samrt.bundle.precisions import PRECISIONS
from samrt.device.array import DeviceArray
from samrt.device.session import DeviceOptions, DeviceSession
from samrt.engines.flavours import Flavour
from samrt.engines.profiles import BuildLimits
from samrt.errors import InputError
from samrt.verification.compare import compare, make_reference, past_tolerance

Built = Callable[[str, str], Path]
FORMS = [("fp32", "augmented"), ("fp32", "dense"), ("fp16", "augmented"), ("fp16", "dense")]


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize(("precision", "lowering"), FORMS)
def test_engines_agree_with_onnx_runtime(
    built: Built, flavour: Flavour, precision: str, lowering: str, cuda_graphs: bool
) -> None:
    bundle = open_bundle(built(precision, lowering))
    with open_session(bundle, "onnxruntime") as cpu:
        reference = make_reference(bundle.manifest.contract, cpu.encoder.run, cpu.decoder.run)
    with open_session(bundle, flavour.name, DeviceOptions(cuda_graphs=cuda_graphs)) as gpu:
        # Twice more than a graph needs to be captured, so that replays are compared too.
        for _ in range(4):
            figures = compare(reference, gpu.encoder.run, gpu.decoder.run, PRECISIONS[precision].tolerance)
            assert past_tolerance(figures, PRECISIONS[precision].tolerance) == []
        # TensorRT-RTX does not tell whether it captured anything.
        state = ("left to TensorRT-RTX" if flavour.is_rtx else "on") if cuda_graphs else "off"
        assert {gpu.encoder.cuda_graphs, gpu.decoder.cuda_graphs} == {state}  # type: ignore[attr-defined]


def test_the_embedding_on_the_gpu_gives_the_same_masks(built: Built, flavour: Flavour) -> None:
    bundle = open_bundle(built("fp16", "augmented"))
    with open_session(bundle, flavour.name) as gpu:
        S, L = bundle.manifest.geometry.encoder_side, bundle.manifest.geometry.low_res_side
        rng = np.random.default_rng(0)
        for points in (2, 0, 2, 5, 2, 0):
            image = {"image": rng.standard_normal((1, 3, S, S)).astype(np.float32)}
            prompts = {
                "point_coords": rng.uniform(0, S, (1, points, 2)).astype(np.float32),
                "point_labels": np.ones((1, points), np.int32),
                "mask_input": rng.standard_normal((1, 1, L, L)).astype(np.float32),
                "has_mask_input": np.ones(1, np.float32),
            }
            on_device = gpu.encoder.run(image, on_device=["image_embeddings"])["image_embeddings"]
            assert isinstance(on_device, DeviceArray)
            from_device = gpu.decoder.run({**prompts, "image_embeddings": on_device})
            from_host = gpu.decoder.run({**prompts, "image_embeddings": on_device.numpy()})
            for name, values in from_host.items():
                # Not bit by bit: TensorRT-RTX may have compiled a better kernel for this shape in between.
                error = np.linalg.norm(from_device[name] - values) / np.linalg.norm(values)
                assert error <= PRECISIONS["fp16"].tolerance.logits_relative_l2


def test_activations_near_the_range_of_half_precision(flavour: Flavour, session: DeviceSession, tmp_path: Path) -> None:
    # Their squares are far beyond it: LayerNormalization must not add them up in half precision.
    ones, zeros = (
        helper.make_node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.FLOAT16, [1024], values))
        for name, values in (("scale", [1.0] * 1024), ("bias", [0.0] * 1024))
    )
    nodes = [
        ones,
        zeros,
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("LayerNormalization", ["half", "scale", "bias"], ["normal"], axis=-1, epsilon=1e-6),
        helper.make_node("Cast", ["normal"], ["y"], to=TensorProto.FLOAT),
    ]
    plan, graph = build(flavour, save(tmp_path / "norm.onnx", nodes), BuildLimits(max_batch=4))
    x = np.random.default_rng(0).uniform(-6e4, 6e4, (4, 1024)).astype(np.float32)
    exact = x.astype(np.float16).astype(np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    engine = TensorRtEngine(plan, graph, flavour, session)
    y = engine.run({"x": x})["y"]
    engine.close()
    error = np.linalg.norm(y - exact) / np.linalg.norm(exact)
    assert error <= PRECISIONS["fp16"].tolerance.embedding_relative_l2


def test_float32_engines_do_not_round_to_tf32(flavour: Flavour, session: DeviceSession, tmp_path: Path) -> None:
    weights = np.random.default_rng(1).standard_normal((1024, 1024)).astype(np.float32)
    constant = helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=constant),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    plan, graph = build(flavour, save(tmp_path / "matmul.onnx", nodes), BuildLimits(max_batch=64))
    x = np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32)
    engine = TensorRtEngine(plan, graph, flavour, session)
    y = engine.run({"x": x})["y"]
    engine.close()
    exact = x.astype(np.float64) @ weights.astype(np.float64)
    # TF32 keeps 11 bits of each factor: an error of some 3e-4.
    assert np.linalg.norm(y - exact) / np.linalg.norm(exact) < PRECISIONS["fp32"].tolerance.embedding_relative_l2


def test_more_than_the_engine_takes_is_refused(flavour: Flavour, session: DeviceSession, tmp_path: Path) -> None:
    plan, graph = build(
        flavour, save(tmp_path / "double.onnx", [helper.make_node("Add", ["x", "x"], ["y"])]), BuildLimits(max_batch=2)
    )
    engine = TensorRtEngine(plan, graph, flavour, session)
    assert engine.max_lengths == {"batch": 2}
    with pytest.raises(InputError, match="max_batch=3"):
        engine.run({"x": np.ones((3, 1024), np.float32)})
    for batch in (1, 2, 1, 2, 1, 2):
        x: Any = np.full((batch, 1024), batch, np.float32)
        np.testing.assert_array_equal(engine.run({"x": x})["y"], 2 * x)
    engine.close()
