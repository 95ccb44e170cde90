"""Attention with decomposed relative position in steps whose scores stay in a processor's cache.

Twice the same: `attend_stepwise` in torch, and the ONNX function that takes its place in an exported graph. Tracing the
torch loop would unroll it.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx.parser
import torch
from torch import Tensor

DOMAIN = "samrt"
# Steps of more queries use the cores better, scores of more than some megabytes leave the cache. Measured with
# ONNX Runtime on a ViT-B at 1024 pixels.
QUERIES_PER_STEP = 256
SCORES_PER_STEP = 1 << 21


@dataclass(frozen=True)
class Steps:
    """How global attention over a square grid is cut.

    Attributes:
        side: tokens along one side of the grid.
        heads: how many heads one step takes.
        rows: how many rows of the grid have their queries in one step.
    """

    side: int
    heads: int
    rows: int

    @classmethod
    def plan(cls, side: int, heads: int) -> Steps:
        """The largest steps within the limits above for a grid of `side` and a layer of `heads`."""
        rows = _largest_divisor(side, QUERIES_PER_STEP // side)
        return cls(side, _largest_divisor(heads, SCORES_PER_STEP // (rows * side**3)), rows)

    @property
    def blocks(self) -> int:
        """Blocks of rows in the grid: the steps of one group of heads."""
        return self.side // self.rows

    @property
    def function_name(self) -> str:
        return f"AttendStepwise_{self.side}x{self.side}_{self.heads}x{self.rows}"

    def order(self, heads: int) -> Tensor:
        """The rows of `[heads, side^2]` queries in the order `[groups, blocks, self.heads, queries]`."""
        rows = torch.arange(heads * self.side**2)
        return rows.reshape(-1, self.heads, self.blocks, self.rows * self.side).transpose(1, 2).flatten()


def _largest_divisor(number: int, limit: int) -> int:
    return max(divisor for divisor in range(1, max(1, limit) + 1) if number % divisor == 0)


def attend_stepwise(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, steps: Steps) -> Tensor:
    """softmax(q.k + rel_h + rel_w) v, never holding all scores at once.

    Args:
        q: `[G, blocks, heads, queries, d]`, G groups of heads, in `Steps.order`.
        k, v: `[G, heads, S, d]`; the keys carry the scale.
        rel_h: `[G, blocks, heads, rows, W, H]`, per query the term of each key row.
        rel_w: `[G, blocks, heads, rows, W, W]`, per query the term of each key column.
        steps: how it is cut.

    Returns:
        As `q`.
    """
    if torch.onnx.is_in_onnx_export():
        name = f"{DOMAIN}::{steps.function_name}"
        return torch.onnx.ops.symbolic(name, (q, k, v, rel_h, rel_w), dtype=q.dtype, shape=q.shape, version=1)
    out = torch.empty_like(q)
    for group in range(q.shape[0]):
        for block in range(steps.blocks):
            scores = q[group, block] @ k[group].transpose(1, 2)
            out[group, block] = softmax_with_bias(scores, rel_h[group, block], rel_w[group, block]) @ v[group]
    return out


def softmax_with_bias(scores: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Add the two terms, `[N, rows, W, H]` and `[N, rows, W, W]`, to scores `[N, rows*W, H*W]`; softmax over keys."""
    on_grid = scores.reshape(*rel_h.shape, rel_w.shape[-1])
    return (on_grid + rel_w[..., None, :] + rel_h[..., None]).reshape(scores.shape).softmax(dim=-1)


def onnx_function(steps: Steps, head_dim: int, dtype: torch.dtype) -> onnx.FunctionProto:
    """What `attend_stepwise` does, as two nested Scans: over groups of heads, and in each over blocks of queries."""
    side, heads, rows, blocks = steps.side, steps.heads, steps.rows, steps.blocks
    queries, tokens = rows * side, side * side
    elem = {torch.float32: "float", torch.float16: "float16"}[dtype]
    # Scan goes over first axes, as it would copy its inputs to get at others. Shapes are spelt out because it
    # allocates its outputs before the first step.
    return onnx.parser.parse_function(f"""
    <domain: "{DOMAIN}", opset_import: ["" : 20]>
    {steps.function_name} (q, k, v, rel_h, rel_w) => (out)
    {{
        h_shape = Constant <value_ints = [-1, {blocks}, {heads}, {rows}, {side}, {side}, 1]> ()
        h_column = Reshape (rel_h, h_shape)
        w_shape = Constant <value_ints = [-1, {blocks}, {heads}, {rows}, {side}, 1, {side}]> ()
        w_row = Reshape (rel_w, w_shape)
        out = Scan <num_scan_inputs = 5, body = over_groups (
            {elem}[{blocks}, {heads}, {queries}, {head_dim}] q_group,
            {elem}[{heads}, {tokens}, {head_dim}] k_group,
            {elem}[{heads}, {tokens}, {head_dim}] v_group,
            {elem}[{blocks}, {heads}, {rows}, {side}, {side}, 1] h_group,
            {elem}[{blocks}, {heads}, {rows}, {side}, 1, {side}] w_group
        ) => ({elem}[{blocks}, {heads}, {queries}, {head_dim}] out_group) {{
            k_transposed = Transpose <perm = [0, 2, 1]> (k_group)
            out_group = Scan <num_scan_inputs = 3, body = over_blocks (
                {elem}[{heads}, {queries}, {head_dim}] q_block,
                {elem}[{heads}, {rows}, {side}, {side}, 1] h_block,
                {elem}[{heads}, {rows}, {side}, 1, {side}] w_block
            ) => ({elem}[{heads}, {queries}, {head_dim}] out_block) {{
                product = MatMul (q_block, k_transposed)
                on_grid = Constant <value_ints = [{heads}, {rows}, {side}, {side}, {side}]> ()
                product_on_grid = Reshape (product, on_grid)
                with_columns = Add (product_on_grid, w_block)
                with_rows = Add (with_columns, h_block)
                flat = Constant <value_ints = [{heads}, {queries}, {tokens}]> ()
                scores = Reshape (with_rows, flat)
                weights = Softmax <axis = -1> (scores)
                out_block = MatMul (weights, v_group)
            }}> (q_group, h_group, w_group)
        }}> (q, k, v, h_column, w_row)
    }}""")
