"""Reading ONNX files with the parser of the TensorRT-RTX that is installed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from samrt.bundle.contract import Graph
from samrt.engines.builder.network import ParsedNetwork, parse
from samrt.engines.flavours import Flavour
from samrt.engines.logger import collecting_logger
from samrt.errors import BackendError, BundleError

pytest_plugins = ("toy_fixtures", "tensorrt_fixtures")


def write_model(path: Path, *nodes: onnx.NodeProto) -> Path:
    """A graph from `x` to `y`, both float32 [batch, 3]; nodes may be of the domain "my.ops"."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy"]
    graph = helper.make_graph(list(nodes), "graph", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my.ops", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return path


@pytest.fixture
def read(rtx: Flavour) -> Callable[[Path], ParsedNetwork]:
    logger = collecting_logger(rtx)
    builder = rtx.module.Builder(logger)
    return lambda path: parse(rtx, logger, path, builder)


def test_inputs_and_outputs(read: Callable[[Path], ParsedNetwork], rtx: Flavour, toy_bundle: Path) -> None:
    trt = rtx.module
    network = read(toy_bundle / "decoder.onnx").network
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    assert {t.name: (t.dtype, tuple(t.shape)) for t in inputs} == {
        "image_embeddings": (trt.float32, (1, 8, 16, 16)),
        "point_coords": (trt.float32, (-1, -1, 2)),
        "point_labels": (trt.int32, (-1, -1)),
        "mask_input": (trt.float32, (-1, 1, 64, 64)),
        "has_mask_input": (trt.float32, (-1,)),
    }
    assert {network.get_output(i).name for i in range(network.num_outputs)} == {"low_res_masks", "iou_predictions"}


def test_a_path_of_any_letters(read: Callable[[Path], ParsedNetwork], toy_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(toy_bundle, tmp_path / "Ünï códe 模型")
    assert read(folder / "encoder.onnx").network.num_inputs == 1


def test_a_path_that_is_not_unicode(rtx: Flavour, tmp_path: Path) -> None:
    path = tmp_path / "m\udcff.onnx"
    try:
        path.write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes Unicode names alone")
    logger = collecting_logger(rtx)
    with pytest.raises(BackendError, match="not Unicode; move the bundle"):
        parse(rtx, logger, path, rtx.module.Builder(logger))


def test_every_refused_node_is_named(read: Callable[[Path], ParsedNetwork], rtx: Flavour, tmp_path: Path) -> None:
    nodes = (
        helper.make_node("StringNormalizer", ["x"], ["a"], name="first"),
        helper.make_node("Nonsense", ["a"], ["b"], name="second", domain="my.ops"),
        helper.make_node("Det", ["b"], ["y"], name="third"),
    )
    with pytest.raises(BackendError) as info:
        read(write_model(tmp_path / "m.onnx", *nodes))
    message = str(info.value)
    for part in ("'first' (StringNormalizer)", "'second' (Nonsense)", "Plugin not found", "'third' (Det)"):
        assert part in message
    assert f"{rtx.title} cannot read" in message
    assert "cannot run Det, Nonsense, StringNormalizer there" in message
    assert "\n" not in message


def test_the_chunked_lowering_is_explained(
    read: Callable[[Path], ParsedNetwork], small_encoder: Callable[[str], tuple[Path, Graph]]
) -> None:
    with pytest.raises(
        BackendError, match=r"\(Scan, in .*AttendStepwise.*chunked lowering is for ONNX Runtime; export"
    ):
        read(small_encoder("chunked")[0])


@pytest.mark.parametrize("content", [None, b"\0"], ids=["missing", "short"])
def test_weights_that_are_not_whole(
    content: bytes | None, read: Callable[[Path], ParsedNetwork], own_bundle: Path
) -> None:
    weights = own_bundle / "encoder.weights"
    weights.unlink()
    if content is not None:
        weights.write_bytes(content)
    with pytest.raises(BundleError, match=r"; encoder\.weights beside it is missing or damaged: copy it again"):
        read(own_bundle / "encoder.onnx")


def test_the_name_of_the_weights_may_hold_spaces(read: Callable[[Path], ParsedNetwork], own_bundle: Path) -> None:
    folder = own_bundle.rename(own_bundle.parent / "two words")
    (folder / "encoder.weights").unlink()
    with pytest.raises(BundleError, match=r"; encoder\.weights beside it"):
        read(folder / "encoder.onnx")


@pytest.mark.parametrize("content", [b"", b"hello world", bytes(range(256))])
def test_a_file_that_is_no_graph(content: bytes, read: Callable[[Path], ParsedNetwork], tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="export the checkpoint again"):
        read(path)


def test_a_missing_file(read: Callable[[Path], ParsedNetwork], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no file .*m\.onnx"):
        read(tmp_path / "m.onnx")


def test_the_logger_keeps_what_matters(rtx: Flavour) -> None:
    logger: Any = collecting_logger(rtx)
    severity = rtx.module.ILogger.Severity
    logger.log(severity.INTERNAL_ERROR, "internal")
    for level in (severity.VERBOSE, severity.INFO, severity.WARNING, severity.ERROR):
        for number in range(1500):
            logger.log(level, f"{number}")
    assert logger.info == [str(n) for n in range(500, 1500)]
    assert logger.warnings == [str(n) for n in range(1000)]
    assert logger.errors == ["internal", *(str(n) for n in range(999))]


def test_strong_typing_is_asked_for(rtx: Flavour, tmp_path: Path) -> None:
    """Through a stand-in for TensorRT 10, where it is a choice; TensorRT-RTX and TensorRT 11 have no other typing."""
    path = write_model(tmp_path / "m.onnx", helper.make_node("Relu", ["x"], ["y"]))
    flag = rtx.module.NetworkDefinitionCreationFlag
    asked: list[int] = []
    parser = SimpleNamespace(parse_from_file=lambda _: False, num_errors=0)
    stand_in = SimpleNamespace(OnnxParser=lambda *_: parser, NetworkDefinitionCreationFlag=flag)
    logger, builder = SimpleNamespace(errors=[]), SimpleNamespace(create_network=asked.append)
    with pytest.raises(BundleError, match=r"TensorRT 10\.3\.0 cannot read .*: it gave no reason"):
        parse(Flavour("tensorrt", stand_in, "10.3.0"), logger, path, builder)
    assert asked == [1 << int(flag.STRONGLY_TYPED)]
