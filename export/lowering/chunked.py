"""The lowering for ONNX Runtime on a CPU: the dense mathematics, a few hundred queries at a time.

Global attention runs in a `Scan` over pairs of heads and blocks of query rows, so that the scores of one step (4 MB)
stay in the cache and S x S memory never exists. Windows are gathered straight out of the packed qkv, row by row:
padding, partition and the split into heads are one copy, and qkv is computed on the grid's own tokens only.
"""

from __future__ import annotations

import onnx
import onnx.parser
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samrt_export.lowering.window_index import gather_index, scatter_index
from samrt_export.models.common import linear
from samrt_export.models.image_encoder_vit import Attention
from samrt_export.models.rel_pos import rel_pos_table

FUNCTION = "samrt::AttendInChunks"
HEADS_PER_STEP = 2
QUERIES_PER_STEP = 128


class ChunkedAttention(nn.Module):
    """`Attention` in steps that fit the cache."""

    gather_q: Tensor
    gather_k: Tensor
    gather_v: Tensor
    scatter: Tensor
    rel_h_table: Tensor
    rel_w_table: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.num_heads, self.head_dim = attention.num_heads, attention.head_dim
        self.grid, self.window_size, self.side = attention.grid, attention.window_size, attention.side
        self.proj = attention.proj
        self.qkv = _with_scaled_keys(attention)
        # [side, d, side]: per query row (column) the projection of a query to its terms.
        self.register_buffer("rel_h_table", rel_pos_table(attention.rel_pos_h).transpose(1, 2).contiguous())
        self.register_buffer("rel_w_table", rel_pos_table(attention.rel_pos_w).transpose(1, 2).contiguous())
        gather = gather_index(self.grid, self.side, self.num_heads)
        for name, index in zip(("gather_q", "gather_k", "gather_v"), gather, strict=True):
            self.register_buffer(name, index.contiguous())
        self.register_buffer("scatter", scatter_index(self.grid, self.side, self.num_heads))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, H, W, C]` normalised tokens to `[B, H, W, C]`."""
        batch, grid, _, channels = x.shape
        # One more token of zeros: its qkv is the bias, which is what a window's padding has.
        tokens = F.pad(x.reshape(batch, grid * grid, channels), (0, 0, 0, 1))
        rows = linear(self.qkv, tokens).reshape(batch, (grid * grid + 1) * 3 * self.num_heads, self.head_dim)
        q, k, v = (
            rows.index_select(1, index).reshape(-1, self.side * self.side, self.head_dim)
            for index in (self.gather_q, self.gather_k, self.gather_v)
        )
        grid_q = q.unflatten(1, (self.side, self.side))
        rel_h = grid_q @ self.rel_h_table
        rel_w = (grid_q.transpose(1, 2) @ self.rel_w_table).transpose(1, 2)
        attend = attend_in_windows if self.window_size else attend_in_chunks
        out = attend(q, k, v, rel_h, rel_w).reshape(batch, -1, self.head_dim).index_select(1, self.scatter)
        return linear(self.proj, out.reshape(batch, grid, grid, channels))


def _with_scaled_keys(attention: Attention) -> nn.Linear:
    # The softmax scale goes into the keys, as the bias needs the plain query.
    scale = torch.ones(3, 1)
    scale[1] = attention.scale
    qkv = nn.Linear(attention.qkv.in_features, attention.qkv.out_features)
    with torch.no_grad():
        qkv.weight.copy_((attention.qkv.weight.unflatten(0, (3, -1)) * scale[..., None]).flatten(0, 1))
        qkv.bias.copy_((attention.qkv.bias.unflatten(0, (3, -1)) * scale).flatten())
    return qkv.requires_grad_(False)


def attend_in_windows(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Attention over windows, whose scores are few: `[N, S, d]` and `[N, H, W, H]`, `[N, H, W, W]` to `[N, S, d]`."""
    side = rel_h.shape[1]
    scores = (q @ k.transpose(-2, -1)).reshape(-1, side, side, side, side)
    scores = scores + rel_w[..., None, :] + rel_h[..., None]
    return scores.reshape(-1, side * side, side * side).softmax(dim=-1) @ v


def query_rows_per_step(side: int) -> int:
    """Rows of the grid whose queries go into one step: the largest divisor of `side` within QUERIES_PER_STEP."""
    return max(
        rows for rows in range(1, side + 1) if side % rows == 0 and (rows == 1 or rows * side <= QUERIES_PER_STEP)
    )


def attend_in_chunks(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Attention with decomposed relative position over a square grid, never holding all scores at once.

    Args:
        q, k, v: `[N, S, d]`, N = batch times heads; the keys carry the scale.
        rel_h: `[N, H, W, H]`, per query the term of each key row.
        rel_w: `[N, H, W, W]`, per query the term of each key column.

    Returns:
        `[N, S, d]`.
    """
    if torch.onnx.is_in_onnx_export():
        # Tracing the loop would unroll it; the exporter adds the function of this name to the graph.
        return torch.onnx.ops.symbolic(FUNCTION, (q, k, v, rel_h, rel_w), dtype=v.dtype, shape=v.shape, version=1)
    heads, side, _, _ = rel_h.shape
    rows = query_rows_per_step(side)
    out = torch.empty_like(v)
    for head in range(heads):
        for top in range(0, side, rows):
            queries = slice(top * side, (top + rows) * side)
            scores = (q[head, queries] @ k[head].T).reshape(rows, side, side, side)
            scores = scores + rel_h[head, top : top + rows, :, :, None] + rel_w[head, top : top + rows, :, None, :]
            out[head, queries] = scores.reshape(rows * side, -1).softmax(dim=-1) @ v[head]
    return out


def chunk_function(attention: ChunkedAttention) -> onnx.FunctionProto:
    """The ONNX function `samrt.AttendInChunks`: what `attend_in_chunks` does, as two nested Scans."""
    heads = HEADS_PER_STEP if attention.num_heads % HEADS_PER_STEP == 0 else 1
    side, head_dim = attention.side, attention.head_dim
    rows = query_rows_per_step(side)
    steps, queries, tokens = side // rows, rows * side, side * side
    elem = "float16" if attention.rel_h_table.dtype == torch.float16 else "float"
    # Shapes are spelt out: Scan allocates its outputs before the first step.
    return onnx.parser.parse_function(f"""
    <domain: "samrt", opset_import: ["" : 20]>
    AttendInChunks (q, k, v, rel_h, rel_w) => (out)
    {{
        per_pair = Constant <value_ints = [-1, {heads}, {tokens}, {head_dim}]> ()
        q_pairs = Reshape (q, per_pair)
        k_pairs = Reshape (k, per_pair)
        v_pairs = Reshape (v, per_pair)
        h_shape = Constant <value_ints = [-1, {heads}, {steps}, {rows}, {side}, {side}, 1]> ()
        h_pairs = Reshape (rel_h, h_shape)
        w_shape = Constant <value_ints = [-1, {heads}, {steps}, {rows}, {side}, 1, {side}]> ()
        w_pairs = Reshape (rel_w, w_shape)
        out_pairs = Scan <num_scan_inputs = 5, body = over_heads (
            {elem}[{heads}, {tokens}, {head_dim}] q_all, {elem}[{heads}, {tokens}, {head_dim}] k_all,
            {elem}[{heads}, {tokens}, {head_dim}] v_all, {elem}[{heads}, {steps}, {rows}, {side}, {side}, 1] h_all,
            {elem}[{heads}, {steps}, {rows}, {side}, 1, {side}] w_all
        ) => ({elem}[{heads}, {tokens}, {head_dim}] pair_out) {{
            k_t = Transpose <perm = [0, 2, 1]> (k_all)
            by_step = Constant <value_ints = [{heads}, {steps}, {queries}, {head_dim}]> ()
            q_steps = Reshape (q_all, by_step)
            step_outs = Scan <num_scan_inputs = 3, scan_input_axes = [1, 1, 1], scan_output_axes = [1],
                body = over_queries (
                {elem}[{heads}, {queries}, {head_dim}] q_step, {elem}[{heads}, {rows}, {side}, {side}, 1] h_step,
                {elem}[{heads}, {rows}, {side}, 1, {side}] w_step
            ) => ({elem}[{heads}, {queries}, {head_dim}] step_out) {{
                product = MatMul (q_step, k_t)
                on_grid = Constant <value_ints = [{heads}, {rows}, {side}, {side}, {side}]> ()
                grid = Reshape (product, on_grid)
                with_w = Add (grid, w_step)
                with_h = Add (with_w, h_step)
                flat = Constant <value_ints = [{heads}, {queries}, {tokens}]> ()
                scores = Reshape (with_h, flat)
                weights = Softmax <axis = -1> (scores)
                step_out = MatMul (weights, v_all)
            }}> (q_steps, h_all, w_all)
            whole = Constant <value_ints = [{heads}, {tokens}, {head_dim}]> ()
            pair_out = Reshape (step_outs, whole)
        }}> (q_pairs, k_pairs, v_pairs, h_pairs, w_pairs)
        all_heads = Constant <value_ints = [-1, {tokens}, {head_dim}]> ()
        out = Reshape (out_pairs, all_heads)
    }}""")
