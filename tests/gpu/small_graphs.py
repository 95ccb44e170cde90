"""Graphs of a node or two, and their plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from samrt.bundle.contract import Graph, Tensor
from samrt.engines.builder.engine import BuildOptions, build_engine
from samrt.engines.flavours import Flavour
from samrt.engines.profiles import BuildLimits, ranges
from samrt.progress import SILENT


def build(flavour: Flavour, model: tuple[Path, Graph], limits: BuildLimits) -> tuple[Path, Graph]:
    """The plan of an ONNX graph, beside it."""
    path, graph = model
    plan = path.with_suffix(f".{flavour.name}.plan")
    plan.write_bytes(build_engine(flavour, path, ranges(graph, limits), BuildOptions(), SILENT).plan)
    return plan, graph


def doubling(folder: Path) -> tuple[Path, Graph]:
    """y = x + x, float32 [batch, 1024]."""
    return save(folder / "double.onnx", [helper.make_node("Add", ["x", "x"], ["y"])])


def save(path: Path, nodes: list[Any], width: int = 1024) -> tuple[Path, Graph]:
    """A graph from x to y, both float32 [batch, width]."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name in "xy")
    model = helper.make_model(
        helper.make_graph(nodes, path.stem, [x], [y]), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    onnx.save_model(model, str(path))
    tensors = [Tensor(name, "float32", ("batch", width)) for name in "xy"]
    return path, Graph(path.name, (tensors[0],), (tensors[1],))
