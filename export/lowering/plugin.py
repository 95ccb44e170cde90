"""The lowering for samrt's TensorRT plugin: each attention layer is one node, from the packed qkv to the projection.

What the node means is written down twice, in torch and as an ONNX function (`DEFINITION`). No exported file holds the
function: TensorRT before 10.7, and since 10.15, would build it in the plugin's place. It lends ONNX Runtime the node
for the comparison with the checkpoint; the kernel itself (kernels/attention) is compared when engines are built.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
import onnx.parser
import torch
from torch import Tensor, nn

from samrt.bundle.graph_check import PLUGIN_NAME
from samrt.engines.plugin import HEAD_DIMS, PLUGIN_NAMESPACE, PLUGIN_VERSION, WITH_PLUGIN
from samrt.errors import InputError, Remedy
from samrt_export.models.common import linear
from samrt_export.models.image_encoder_vit import Attention, head_by_head
from samrt_export.models.rel_pos import rel_pos_table
from samrt_export.models.windows import padded, partition, unpartition

DOMAIN = "samrt"


def check_plugin_fits(encoder: nn.Module, precision: str) -> None:
    """Raises InputError where the kernel does not compute this encoder's attention in this precision."""
    if precision != "fp16":
        raise InputError(
            f"the plugin's kernel computes in half precision, not in {precision}",
            Remedy(f"use {{precisions}} and {{lowering}}, or another lowering for {precision}", WITH_PLUGIN),
        )
    unfit = sorted({each.head_dim for each in encoder.modules() if isinstance(each, Attention)} - set(HEAD_DIMS))
    if unfit:
        raise InputError(
            f"the plugin's kernel is made for head dimensions of {' and '.join(map(str, HEAD_DIMS))}, and this encoder "
            f"has {', '.join(map(str, unfit))}",
            Remedy("use {lowering}", {"lowering": "augmented"}),
        )


@dataclass(frozen=True)
class Sizes:
    """The node's attributes, besides those by which TensorRT finds the plugin; a window of 0 is the whole grid."""

    num_heads: int
    head_dim: int
    window_size: int


class PluginAttention(nn.Module):
    """`Attention`, global or in windows, as two linear layers around the node."""

    rel_pos_h: Tensor
    rel_pos_w: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.sizes = Sizes(attention.num_heads, attention.head_dim, attention.window_size)
        self.qkv, self.proj = attention.qkv, attention.proj
        self.rel_pos_h, self.rel_pos_w = attention.rel_pos_h, attention.rel_pos_w

    def forward(self, x: Tensor) -> Tensor:
        """`[B, H, W, C]` normalised tokens to `[B, H, W, C]`."""
        qkv = linear(self.qkv, x)
        return linear(self.proj, attend(qkv, self.qkv.bias, self.rel_pos_h, self.rel_pos_w, self.sizes))


def attend(qkv: Tensor, qkv_bias: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, sizes: Sizes) -> Tensor:
    """The node: attention with decomposed relative position, between the qkv layer and the projection.

    Computed in float32 from inputs and to an output of any one type. The kernel does too, but for the softmax's
    weights, which it rounds to that type before their product with v.

    Args:
        qkv: `[B, H, W, 3 * heads * d]`, the bias included.
        qkv_bias: `[3 * heads * d]`: q, k and v of the tokens that fill the last windows.
        rel_pos_h: `[2 * side - 1, d]`, side being the window, or H.
        rel_pos_w: likewise with W.
        sizes: the node's attributes.

    Returns:
        `[B, H, W, heads * d]`.
    """
    if torch.onnx.is_in_onnx_export():
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{PLUGIN_NAME}",
            (qkv, qkv_bias, rel_pos_h, rel_pos_w),
            {**asdict(sizes), "plugin_version": PLUGIN_VERSION, "plugin_namespace": PLUGIN_NAMESPACE},
            dtype=qkv.dtype,
            shape=(*qkv.shape[:-1], qkv.shape[-1] // 3),
            version=1,
        )
    batch, grid, window = qkv.shape[0], qkv.shape[1], sizes.window_size
    if window:
        full = padded(grid, window)
        filled = qkv_bias.repeat(batch, full, full, 1)
        filled[:, :grid, :grid] = qkv
        qkv = partition(filled, window)
    side = qkv.shape[1]
    # [windows, side, side, 3C] -> q, k, v of [windows, heads, side^2, d]
    q, k, v = qkv.float().reshape(-1, side**2, 3, sizes.num_heads, sizes.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    table_h, table_w = rel_pos_table(rel_pos_h.float()), rel_pos_table(rel_pos_w.float())

    def one_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        grid_q = q.unflatten(2, (side, side))
        rel_h = torch.einsum("bnhwd,hkd->bnhwk", grid_q, table_h)
        rel_w = torch.einsum("bnhwd,wkd->bnhwk", grid_q, table_w)
        scores = (q * sizes.head_dim**-0.5) @ k.transpose(-2, -1)
        on_grid = scores.reshape(*rel_h.shape, side) + rel_h[..., :, None] + rel_w[..., None, :]
        return on_grid.reshape(scores.shape).softmax(dim=-1) @ v

    out = head_by_head(one_head, q, k, v).permute(0, 2, 1, 3).reshape(-1, side, side, qkv.shape[-1] // 3)
    return (unpartition(out, window, grid) if window else out).to(qkv.dtype)


# The same in standard operators: for any attributes, any batch, and grids whose sides may differ. The axis of length
# `rest` goes over the heads of all windows of all images.
DEFINITION = f"""
<domain: "{DOMAIN}", opset_import: ["" : 20]>
{PLUGIN_NAME} <num_heads, head_dim, window_size, plugin_version, plugin_namespace>
    (qkv, qkv_bias, rel_pos_h, rel_pos_w) => (out)
{{
    qkv_32 = Cast <to = 1> (qkv)
    bias_32 = Cast <to = 1> (qkv_bias)
    rel_pos_h_32 = Cast <to = 1> (rel_pos_h)
    rel_pos_w_32 = Cast <to = 1> (rel_pos_w)

    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    three = Constant <value_ints = [3]> ()
    rest = Constant <value_ints = [-1]> ()
    num_heads = Constant <value_int: int = @num_heads> ()
    heads = Reshape (num_heads, one)
    head_dim = Constant <value_int: int = @head_dim> ()
    width = Reshape (head_dim, one)
    window = Constant <value_int: int = @window_size> ()
    batch = Shape <start = 0, end = 1> (qkv)
    grid_h = Shape <start = 1, end = 2> (qkv)
    grid_w = Shape <start = 2, end = 3> (qkv)

    is_global = Equal (window, zero)
    side_h = Where (is_global, grid_h, window)
    side_w = Where (is_global, grid_w, window)
    tokens = Mul (side_h, side_w)
    most_h = Sub (side_h, one)
    most_w = Sub (side_w, one)
    reach_h = Add (grid_h, most_h)
    reach_w = Add (grid_w, most_w)
    windows_h = Div (reach_h, side_h)
    windows_w = Div (reach_w, side_w)
    full_h = Mul (windows_h, side_h)
    full_w = Mul (windows_w, side_w)

    more_h = Sub (full_h, grid_h)
    more_w = Sub (full_w, grid_w)
    pads = Concat <axis = 0> (zero, zero, zero, zero, zero, more_h, more_w, zero)
    with_zeros = Pad (qkv_32, pads)
    mask_shape = Concat <axis = 0> (one, grid_h, grid_w, one)
    inside = ConstantOfShape (mask_shape)
    outside = Constant <value_float = 1.0> ()
    mask = Pad (inside, pads, outside)
    is_padding = Cast <to = 9> (mask)
    filled = Where (is_padding, bias_32, with_zeros)

    split_shape = Concat <axis = 0> (batch, windows_h, side_h, windows_w, side_w, three, heads, width)
    split = Reshape (filled, split_shape)
    by_window = Transpose <perm = [5, 0, 1, 3, 6, 2, 4, 7]> (split)
    rows_shape = Concat <axis = 0> (three, rest, side_h, side_w, width)
    rows = Reshape (by_window, rows_shape)
    q_1, k_1, v_1 = Split <axis = 0, num_outputs = 3> (rows)
    q = Squeeze (q_1, zero)
    list_shape = Concat <axis = 0> (rest, tokens, width)
    q_list = Reshape (q_1, list_shape)
    k_list = Reshape (k_1, list_shape)
    v_list = Reshape (v_1, list_shape)

    start = Constant <value_int = 0> ()
    step = Constant <value_int = 1> ()
    end_h = Squeeze (side_h)
    positions_h = Range (start, end_h, step)
    query_h = Unsqueeze (positions_h, one)
    offset_h = Sub (query_h, positions_h)
    index_h = Add (offset_h, most_h)
    table_h = Gather (rel_pos_h_32, index_h)
    to_rows = Transpose <perm = [0, 2, 1]> (table_h)
    rel_h = MatMul (q, to_rows)
    end_w = Squeeze (side_w)
    positions_w = Range (start, end_w, step)
    query_w = Unsqueeze (positions_w, one)
    offset_w = Sub (query_w, positions_w)
    index_w = Add (offset_w, most_w)
    table_w = Gather (rel_pos_w_32, index_w)
    to_columns = Transpose <perm = [0, 2, 1]> (table_w)
    q_by_column = Transpose <perm = [0, 2, 1, 3]> (q)
    rel_w_by_column = MatMul (q_by_column, to_columns)
    rel_w = Transpose <perm = [0, 2, 1, 3]> (rel_w_by_column)

    width_32 = Cast <to = 1> (width)
    root = Sqrt (width_32)
    q_scaled = Div (q_list, root)
    k_transposed = Transpose <perm = [0, 2, 1]> (k_list)
    product = MatMul (q_scaled, k_transposed)
    grid_shape = Concat <axis = 0> (rest, side_h, side_w, side_h, side_w)
    on_grid = Reshape (product, grid_shape)
    last = Constant <value_ints = [4]> ()
    row_terms = Unsqueeze (rel_h, last)
    with_rows = Add (on_grid, row_terms)
    column_terms = Unsqueeze (rel_w, three)
    with_columns = Add (with_rows, column_terms)
    scores_shape = Concat <axis = 0> (rest, tokens, tokens)
    scores = Reshape (with_columns, scores_shape)
    weights = Softmax <axis = -1> (scores)
    attended = MatMul (weights, v_list)

    windows_shape = Concat <axis = 0> (batch, windows_h, windows_w, heads, side_h, side_w, width)
    of_windows = Reshape (attended, windows_shape)
    by_row = Transpose <perm = [0, 1, 4, 2, 5, 3, 6]> (of_windows)
    channels = Mul (heads, width)
    full_shape = Concat <axis = 0> (batch, full_h, full_w, channels)
    full = Reshape (by_row, full_shape)
    origin = Constant <value_ints = [0, 0]> ()
    grid = Concat <axis = 0> (grid_h, grid_w)
    rows_and_columns = Constant <value_ints = [1, 2]> ()
    out_32 = Slice (full, origin, grid, rows_and_columns)
    out = CastLike (out_32, qkv)
}}
"""


@contextmanager
def with_definition(path: Path) -> Iterator[Path]:
    """A copy of the graph at `path`, beside it, that defines the node and so runs in ONNX Runtime; gone afterwards."""
    model = onnx.load(str(path), load_external_data=False)
    model.functions.append(onnx.parser.parse_function(DEFINITION))
    # Beside it, as external weights may lie nowhere else.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.stem}.", suffix=".onnx") as file:
        file.write(model.SerializeToString())
        file.flush()
        yield Path(file.name)
