"""What the plugin's node means: in torch, and by its definition in ONNX, held against dense attention and a formula.

Its kernel is another matter, and has tests of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.parser
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from seeded import normal, seeded_attention
from torch import Tensor, nn

from samrt.bundle.contract import Graph
from samrt.bundle.manifest import Tensor as Spec
from samrt.bundle.precisions import PRECISIONS
from samrt.engines import plugin as names
from samrt_export.lowering.plugin import DEFINITION, PluginAttention, Sizes, attend, with_definition
from samrt_export.onnx_export import export_graph

BOUND = PRECISIONS["fp32"].tolerance.embedding_relative_l2
HALF_BOUND = PRECISIONS["fp16"].tolerance.embedding_relative_l2
# head_dim, heads, grid, window
SHAPES = {
    "global": (64, 2, 8, 0),
    "global, odd grid": (80, 1, 13, 0),
    "windows that fit": (64, 2, 12, 4),
    "padded windows": (64, 3, 16, 14),
    "padded windows, heads of 80": (80, 2, 9, 5),
    "one padded window": (64, 1, 4, 14),
}


def relative_l2(value: Any, truth: Any) -> float:
    value, truth = (np.asarray(each, np.float64) for each in (value, truth))
    assert value.shape == truth.shape
    return float(np.linalg.norm(value - truth) / np.linalg.norm(truth))


class InHalf(nn.Module):
    """A layer in half precision that takes and returns float32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.half()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.module(x.half())
        return out.float()


def exported(module: nn.Module, x: Tensor, folder: Path) -> Path:
    """One layer with a dynamic batch, as an encoder is exported."""
    shape = ("batch", *x.shape[1:])
    graph = Graph("layer.onnx", inputs=(Spec("x", "float32", shape),), outputs=(Spec("y", "float32", shape),))
    export_graph(module, graph, (torch.zeros(2, *x.shape[1:]),), folder)
    return folder / graph.file


def run_defined(path: Path, x: Tensor) -> NDArray[np.float32]:
    with with_definition(path) as runnable:
        session = onnxruntime.InferenceSession(str(runnable), providers=["CPUExecutionProvider"])
        out: NDArray[np.float32] = session.run(None, {"x": x.numpy()})[0]
    return out


@pytest.mark.parametrize("shape", SHAPES)
def test_defined_in_onnx_it_equals_dense_attention(shape: str, tmp_path: Path) -> None:
    head_dim, heads, grid, window = SHAPES[shape]
    dense = seeded_attention(head_dim, heads, grid, window)
    path = exported(PluginAttention(dense), normal(1, grid, grid, heads * head_dim), tmp_path)
    for batch in (1, 3):
        x = normal(batch, grid, grid, heads * head_dim)
        assert relative_l2(run_defined(path, x), dense(x)) <= BOUND
    assert [each.name for each in tmp_path.iterdir()] == ["layer.onnx"]


@pytest.mark.parametrize("shape", ["global", "padded windows", "padded windows, heads of 80"])
def test_in_half_precision(shape: str, tmp_path: Path) -> None:
    head_dim, heads, grid, window = SHAPES[shape]
    dense = seeded_attention(head_dim, heads, grid, window)
    x = normal(2, grid, grid, heads * head_dim)
    expected = dense(x)
    half = InHalf(PluginAttention(dense))
    for result in (half(x), run_defined(exported(half, x, tmp_path), x)):
        assert 1e-5 < relative_l2(result, expected) <= HALF_BOUND


def looped(inputs: list[NDArray[np.float64]], sizes: Sizes) -> NDArray[np.float64]:
    """The node by its formula in kernels/samrt_kernels.h, one query at a time, in float64."""
    qkv, bias, rel_pos_h, rel_pos_w = inputs
    batch, grid_h, grid_w, _ = qkv.shape
    side_h, side_w = (sizes.window_size or side for side in (grid_h, grid_w))
    shape = (3, sizes.num_heads, sizes.head_dim)
    qkv, bias = qkv.reshape(batch, grid_h, grid_w, *shape), bias.reshape(shape)
    out = np.empty((batch, grid_h, grid_w, *shape[1:]))
    for image, head, row, column in np.ndindex(batch, sizes.num_heads, grid_h, grid_w):
        top, left = row // side_h * side_h, column // side_w * side_w
        q = qkv[image, row, column, 0, head]
        scores, values = [], []
        for y in range(top, top + side_h):
            for x in range(left, left + side_w):
                inside = y < grid_h and x < grid_w
                _, k, v = qkv[image, y, x, :, head] if inside else bias[:, head]
                terms = rel_pos_h[row - y + side_h - 1] + rel_pos_w[column - x + side_w - 1]
                scores.append(q @ k * sizes.head_dim**-0.5 + q @ terms)
                values.append(v)
        weights = np.exp(np.array(scores) - max(scores))
        out[image, row, column, head] = weights @ np.array(values) / weights.sum()
    return out.reshape(batch, grid_h, grid_w, -1)


@pytest.mark.parametrize(
    ("grid", "window"), [((4, 4), 0), ((3, 5), 0), ((6, 4), 0), ((5, 5), 3), ((4, 7), 3), ((2, 3), 4)]
)
def test_the_definition_is_the_formula_of_the_kernels_header(grid: tuple[int, int], window: int) -> None:
    """On grids of any shape; torch's form is for square ones, as all of SAM's are."""
    sizes = Sizes(num_heads=2, head_dim=64, window_size=window)
    channels = sizes.num_heads * sizes.head_dim
    sides = [window or side for side in grid]
    shapes = [(2, *grid, 3 * channels), (3 * channels,), *((2 * side - 1, sizes.head_dim) for side in sides)]
    inputs = [normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    inputs[2:] = [0.3 * each for each in inputs[2:]]
    expected = looped([each.double().numpy() for each in inputs], sizes)
    assert relative_l2(run_node([each.numpy() for each in inputs], sizes), expected) <= BOUND
    if grid[0] == grid[1]:
        assert relative_l2(attend(*inputs, sizes), expected) <= BOUND


def run_node(inputs: list[NDArray[np.float32]], sizes: Sizes) -> NDArray[np.float32]:
    letters = ("qkv", "qkv_bias", "rel_pos_h", "rel_pos_w")
    node = onnx.helper.make_node(names.PLUGIN_NAME, letters, ["out"], domain="samrt", **vars(sizes))
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, each.shape)
        for name, each in zip(letters, inputs, strict=True)
    ]
    shape = [*inputs[0].shape[:-1], sizes.num_heads * sizes.head_dim]
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, shape)
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "node", values, [out]),
        opset_imports=[onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("samrt", 1)],
        functions=[onnx.parser.parse_function(DEFINITION)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, dict(zip(letters, inputs, strict=True)))[0]
    return result
