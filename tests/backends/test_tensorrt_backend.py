"""The TensorRT backend, as far as it goes without a GPU: no figure here is a GPU's.

`hostcuda/check_*.py` drive it on a driver whose device memory is host memory, with a TensorRT that computes with
ONNX Runtime. The real TensorRT-RTX builds a plan here and refuses to run it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from contracts import sam_graph
from hostcuda.outside import expect_passed, names
from onnx import TensorProto, helper

from samrt.backends.tensorrt.plan import ErrorLines, Errors, deserialize, runtime_logger
from samrt.backends.tensorrt.ranges import InputRange, check_names, check_shapes, max_lengths, named_axes
from samrt.bundle.contract import MASK_DECODER, Graph, Tensor
from samrt.device.gpus import find_gpus
from samrt.engines.flavours import Flavour, import_flavour
from samrt.errors import BackendError, InputError

ON_HOST_MEMORY = (
    "check_engine.py",
    "check_engine_failures.py",
    "check_engine_graphs.py",
    "check_engine_lifetime.py",
    "check_model.py",
    "check_plugin.py",
)
DECODER = sam_graph(MASK_DECODER, "decoder.onnx", 64, (8, 16, 16))
RANGES = (
    InputRange(Tensor("coords", "float32", ("prompts", "points", 2)), (1, 0, 2), (4, 16, 2)),
    InputRange(Tensor("labels", "int32", ("prompts", "points")), (1, 0), (4, 16)),
)


@pytest.mark.parametrize(("file", "name"), [(file, name) for file in ON_HOST_MEMORY for name in names(file)])
def test_on_host_memory(file: str, name: str) -> None:
    expect_passed(file, name)


def test_axes_get_the_names_of_the_graph() -> None:
    assert named_axes(DECODER, "point_coords", (-1, -1, 2)) == ("prompts", "points", 2)
    assert named_axes(DECODER, "low_res_masks", (-1, 4, 64, 64)) == ("prompts", 4, 64, 64)
    # An engine that was built for one length may report that.
    assert named_axes(DECODER, "point_coords", (1, -1, 2)) == ("prompts", "points", 2)
    # Neither a name that the graph lacks nor another number of axes is an error here: the backend compares them.
    assert named_axes(Graph("x.onnx", (), ()), "other", (-1, 3)) == ("-1", 3)
    assert named_axes(DECODER, "point_labels", (-1, 3, 4)) == ("-1", 3, 4)


def test_limits_are_those_of_the_named_axes() -> None:
    assert max_lengths(RANGES) == {"prompts": 4, "points": 16}
    narrower = InputRange(Tensor("mask", "float32", ("prompts", 1)), (1, 1), (2, 1))
    assert max_lengths((narrower, *RANGES)) == max_lengths((*RANGES, narrower)) == {"prompts": 2, "points": 16}


def test_shapes_within_the_ranges_pass() -> None:
    check_names(["labels", "coords"], RANGES)
    for prompts, points in ((1, 0), (4, 16)):
        check_shapes({"coords": (prompts, points, 2), "labels": (prompts, points)}, RANGES)


@pytest.mark.parametrize(
    ("coords", "labels", "message"),
    [
        ((5, 1, 2), (5, 1), "max_prompts=5"),
        ((1, 17, 2), (1, 17), "max_points=17"),
        ((0, 1, 2), (0, 1), "at least 1"),
        ((1, 1, 3), (1, 1), r"must have the shape \[prompts, points, 2\], not \[1, 1, 3\]"),
        ((1, 1), (1, 1), r"must have the shape \[prompts, points, 2\], not \[1, 1\]"),
        ((1, 2, 2), (1, 3), "labels has 3 points, coords has 2"),
    ],
)
def test_other_shapes_are_refused(coords: tuple[int, ...], labels: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_shapes({"coords": coords, "labels": labels}, RANGES)


def test_errors_are_those_since_the_call_began() -> None:
    class Logger:
        errors = ErrorLines()

    Logger.errors.append("an older one")
    errors = Errors(Logger)
    assert errors.text() == "it gave no reason"
    for line in ("first ", "second"):
        Logger.errors.append(line)
    assert errors.text() == "first | second"
    # A list that is full would hide what comes.
    for _ in range(2000):
        Logger.errors.append("old")
    late = Errors(Logger)
    Logger.errors.append("new")
    assert late.text() == "new"
    assert len(Logger.errors) == 500


def test_errors_of_other_threads_count_only_where_this_one_has_none() -> None:
    class Logger:
        errors = ErrorLines()

    errors = Errors(Logger)
    thread = threading.Thread(target=Logger.errors.append, args=("elsewhere",))
    thread.start()
    thread.join()
    assert errors.text() == "elsewhere"
    Logger.errors.append("here")
    assert errors.text() == "here"


def test_the_logger_keeps_what_tensorrt_reports_for_good(rtx: Flavour) -> None:
    logger = runtime_logger(rtx)
    assert logger is runtime_logger(rtx)
    for turn in range(1200):
        errors = Errors(logger)
        logger.log(rtx.module.ILogger.Severity.ERROR, f"error {turn}")
        assert errors.text() == f"error {turn}"


@pytest.fixture(scope="module")
def rtx() -> Flavour:
    pytest.importorskip("tensorrt_rtx")
    return import_flavour("tensorrt_rtx")


@pytest.fixture(scope="module")
def plan(rtx: Flavour, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of y = x + x."""
    folder = tmp_path_factory.mktemp("plan")
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "add", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save_model(model, str(folder / "add.onnx"))
    return _build(rtx, folder / "add.onnx")


def _build(flavour: Flavour, path: Path) -> Path:
    trt: Any = flavour.module
    builder = trt.Builder(runtime_logger(flavour))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, runtime_logger(flavour)).parse_from_file(str(path))
    path.with_suffix(".plan").write_bytes(
        bytes(builder.build_serialized_network(network, builder.create_builder_config()))
    )
    return path.with_suffix(".plan")


def test_the_real_tensorrt_rtx_says_that_there_is_no_driver(rtx: Flavour, plan: Path) -> None:
    if find_gpus():
        pytest.skip("there is a GPU here; tests/gpu runs engines on it")
    with pytest.raises(BackendError, match=r"cannot run add\.plan: .*cudaError 35.*there is no NVIDIA driver"):
        deserialize(plan, rtx)


def test_the_real_tensorrt_rtx_recognises_what_is_no_plan(rtx: Flavour, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.plan"
    damaged.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(BackendError, match=r"damaged: build the engines again on this machine"):
        deserialize(damaged, rtx)


def test_what_the_backend_uses_of_tensorrt_rtx_is_there(rtx: Flavour) -> None:
    trt: Any = rtx.module
    # Reading them needs a GPU, so a misspelt one would show there only.
    used = {
        trt.ICudaEngine: "num_io_tensors get_tensor_name get_tensor_dtype get_tensor_shape get_tensor_mode "
        "get_tensor_profile_shape device_memory_size_v2 create_execution_context create_runtime_config",
        trt.IExecutionContext: "set_input_shape set_tensor_address get_tensor_shape execute_async_v3 set_device_memory",
        trt.IRuntimeConfig: "cuda_graph_strategy create_runtime_cache set_runtime_cache",
        trt.IRuntimeCache: "serialize deserialize",
        trt.Runtime: "get_engine_validity deserialize_cuda_engine",
        trt: "nptype",
    }
    missing = [
        f"{kind.__name__}.{name}" for kind, names_ in used.items() for name in names_.split() if not hasattr(kind, name)
    ]
    assert missing == []
    assert trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE != trt.CudaGraphStrategy.DISABLED
    assert {"VALID", "INVALID"} <= set(trt.EngineValidity.__members__)
