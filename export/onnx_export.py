"""Torch modules to ONNX files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx_ir
import torch
from torch import Tensor, nn

from samrt.bundle.contract import Graph
from samrt_export.lowering.chunked import ChunkedAttention
from samrt_export.lowering.stepwise import DOMAIN, onnx_function

# LayerNormalization is one node since 17, Gelu since 20; TensorRT 10.3 and ONNX Runtime 1.17 read up to 20.
OPSET = 20


def export_graph(module: nn.Module, graph: Graph, samples: tuple[Tensor, ...], folder: Path, weights: str = "") -> None:
    """Trace `module` and write `folder / graph.file`.

    Args:
        module: takes and returns tensors in the order of the graph's inputs and outputs.
        graph: names and shapes; the strings in its shapes become dynamic axes.
        samples: example inputs; no dynamic axis may have length 1, which would fix it.
        weights: file in `folder` for the weights (external data); empty: inside the graph's file.
    """
    axes: dict[str, torch.export.Dim] = {}
    with _quiet():
        program = torch.onnx.export(
            module,
            samples,
            dynamo=True,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in graph.inputs],
            output_names=[tensor.name for tensor in graph.outputs],
            dynamic_shapes=[_dynamic_axes(tensor.shape, axes) for tensor in graph.inputs],
            verbose=False,
        )
    assert program is not None  # only an export straight into a file returns nothing
    model = program.model
    _add_functions(model, module)
    _forget_origin(model)
    onnx_ir.save(model, folder / graph.file, external_data=weights or None)


def _dynamic_axes(shape: Sequence[int | str], axes: dict[str, torch.export.Dim]) -> dict[int, torch.export.Dim]:
    return {
        index: axes.setdefault(length, torch.export.Dim(length, min=0 if length == "points" else 1))
        for index, length in enumerate(shape)
        if isinstance(length, str)
    }


def _add_functions(model: onnx_ir.Model, module: nn.Module) -> None:
    """Define the function that chunked attention calls; all global layers of an encoder share one."""
    for layer in module.modules():
        if isinstance(layer, ChunkedAttention) and layer.stepwise:
            proto = onnx_function(layer.steps, layer.head_dim, layer.rel_h_table.dtype)
            function = onnx_ir.serde.deserialize_function(proto)
            model.functions[function.identifier()] = function
            model.opset_imports[DOMAIN] = 1


def _forget_origin(model: onnx_ir.Model) -> None:
    """Leave out where in the sources each node comes from: the paths of the machine that exports, in every node."""
    model.graph.metadata_props.clear()
    for node in onnx_ir.traversal.RecursiveGraphIterator(model.graph):
        node.metadata_props.clear()
        node.doc_string = None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's exporter says about its own internals; its errors are exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
