"""Attention layers to check kernels on: sizes that meet every edge of a tile, and numbers at the ends of a format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from formats import LARGEST, rounded
from numpy.typing import NDArray
from reference import Tensors

Random = np.random.Generator
Numbers = Callable[["Draft"], None]


@dataclass(frozen=True)
class Case:
    """Attributes:
    batch, grid_h, grid_w, heads, window: as in `samrt_attention_args`.
    with_bias: with tables of relative positions.
    numbers: changes tensors of plain normal numbers.
    offset: bytes past an address of the allocator's alignment, for every tensor.
    """

    grid_h: int
    grid_w: int
    heads: int = 1
    batch: int = 1
    window: int = 0
    with_bias: bool = True
    numbers: Numbers | None = None
    offset: int = 0


@dataclass
class Draft:
    """Tensors under way, float32; shapes as in `reference.Tensors`."""

    qkv: NDArray[Any]
    qkv_bias: NDArray[Any]
    rel_pos_h: NDArray[Any]
    rel_pos_w: NDArray[Any]
    precision: str
    random: Random

    @property
    def q(self) -> NDArray[Any]:
        return self.qkv[:, :, :, 0]

    @property
    def k(self) -> NDArray[Any]:
        return self.qkv[:, :, :, 1]

    @property
    def v(self) -> NDArray[Any]:
        return self.qkv[:, :, :, 2]

    @property
    def head_dim(self) -> int:
        return int(self.qkv.shape[-1])


def make(case: Case, precision: str, head_dim: int) -> Tensors:
    """Seeded tensors of values that the format holds exactly."""
    random = np.random.default_rng(1)
    side_h, side_w = (case.window, case.window) if case.window else (case.grid_h, case.grid_w)

    def normal(*shape: int) -> NDArray[Any]:
        return random.standard_normal(shape).astype(np.float32)

    draft = Draft(
        normal(case.batch, case.grid_h, case.grid_w, 3, case.heads, head_dim),
        normal(3, case.heads, head_dim),
        # Terms of about the size of the products.
        normal(2 * side_h - 1, head_dim) / np.float32(head_dim) ** 0.5,
        normal(2 * side_w - 1, head_dim) / np.float32(head_dim) ** 0.5,
        precision,
        random,
    )
    if case.numbers:
        case.numbers(draft)
    qkv, bias, rel_pos_h, rel_pos_w = (
        rounded(tensor, precision) for tensor in (draft.qkv, draft.qkv_bias, draft.rel_pos_h, draft.rel_pos_w)
    )
    tables = (rel_pos_h, rel_pos_w) if case.with_bias else (None, None)
    return Tensors(qkv, bias, *tables, case.window)


def all_alike(draft: Draft) -> None:
    """Every key scores the same: the mean of the values."""
    draft.k[:] = 1.0
    draft.rel_pos_h[:] = draft.rel_pos_w[:] = 0.25


def large_products(draft: Draft) -> None:
    """Scores of up to 60,000 of either sign; some keys are the query's own direction, some the opposite."""
    size = np.sqrt(60000.0 / draft.head_dim**0.5)
    sign = draft.random.choice([-1.0, 1.0], draft.head_dim)
    side = draft.random.choice([-1.0, 1.0, 0.5], (*draft.qkv.shape[:3], 1, 1))
    draft.q[:] = size * sign
    draft.k[:] = size * sign * side
    draft.qkv_bias[:2] = size * sign


def all_far_below(draft: Draft) -> None:
    """Scores of -60,000 for every key: only their differences count, and there are none."""
    size = np.sqrt(60000.0 / draft.head_dim**0.5)
    draft.q[:], draft.k[:] = size, -size
    draft.qkv_bias[0], draft.qkv_bias[1] = size, -size
    draft.rel_pos_h[:] = draft.rel_pos_w[:] = 0.0


def _one_by_one(draft: Draft, scores: NDArray[Any]) -> None:
    """One element of query and key makes the score; `scores` [grid_h, grid_w], times 8."""
    draft.q[:], draft.k[:] = 0.0, 0.0
    draft.q[..., 3] = 8.0
    draft.k[..., 3] = scores[:, :, None]
    draft.rel_pos_h[:] = draft.rel_pos_w[:] = 0.0


def rising(draft: Draft) -> None:
    """Each key scores higher than those before it, so every tile has a new maximum."""
    grid = draft.qkv.shape[1:3]
    _one_by_one(draft, np.linspace(-100, 100, grid[0] * grid[1]).reshape(grid))


def rising_slowly(draft: Draft) -> None:
    """By 2^6 from one row of keys to the next: less than scores may pass the subtracted maximum by, 2^8 in fp16."""
    grid = draft.qkv.shape[1:3]
    most = 6 * np.log(2) * grid[0] / 2 * draft.head_dim**0.5 / 8
    _one_by_one(draft, np.linspace(-most, most, grid[0] * grid[1]).reshape(grid))


def falling(draft: Draft) -> None:
    """The first key scores highest: what comes later counts for less and less, in the end for nothing."""
    grid = draft.qkv.shape[1:3]
    _one_by_one(draft, np.linspace(100, -100, grid[0] * grid[1]).reshape(grid))


def large_terms(draft: Draft) -> None:
    """Row and column terms of 60,025 of either sign: scores beyond what half precision holds."""
    draft.q[..., 0] = 245.0
    draft.qkv_bias[0, :, 0] = 245.0
    for table in (draft.rel_pos_h, draft.rel_pos_w):
        table[:, 0] = draft.random.choice([-245.0, 245.0], len(table))
    draft.k[..., 0] = 0.0
    draft.qkv_bias[1, :, 0] = 0.0


def one_large_term(draft: Draft) -> None:
    """Only tokens in the same row and column of the grid count."""
    draft.q[..., 0] = 245.0
    draft.qkv_bias[0, :, 0] = 245.0
    for table in (draft.rel_pos_h, draft.rel_pos_w):
        table[:, 0] = -245.0
        table[len(table) // 2, 0] = 245.0


def largest_values(draft: Draft) -> None:
    """Values at the format's end. Sums over all keys are held in float32, whose end bf16 shares."""
    tokens = draft.qkv.shape[1] * draft.qkv.shape[2]
    largest = LARGEST["fp16"] if draft.precision == "fp16" else LARGEST["bf16"] / (2 * tokens)
    draft.v[:] = draft.random.choice([-1.0, 1.0], draft.v.shape) * largest


def smallest_values(draft: Draft) -> None:
    """Values that fp16 holds as subnormal numbers."""
    draft.v[:] *= 2.0**-18


def nan_query(draft: Draft) -> None:
    draft.q[0, 1, 2, 0, 5] = np.nan


def nan_key(draft: Draft) -> None:
    draft.k[0, 1, 2, 0, 5] = np.nan


def nan_value(draft: Draft) -> None:
    draft.v[0, 1, 2, 0, 5] = np.nan


def infinite_value(draft: Draft) -> None:
    """An infinity in one element of one value: that element of every result of the head, and nothing else.

    As long as no weight is 0 in the kernel's 16 bits: that times infinity is NaN.
    """
    draft.v[0, 1, 2, 0, 5] = np.inf


CASES = {
    "1x1": Case(1, 1, heads=2, batch=2),
    "1x9": Case(1, 9),
    "5x7": Case(5, 7, heads=3, batch=2),
    "14x14": Case(14, 14, heads=2),
    "16x16": Case(16, 16),
    "17x16": Case(17, 16),
    "20x24": Case(20, 24),
    "9x33": Case(9, 33),
    "3x65": Case(3, 65),
    "2x64": Case(2, 64),
    "40x4": Case(40, 4),
    "33x1": Case(33, 1, heads=2),
    "windows of 14, padded": Case(20, 16, window=14),
    "windows of 14, batch 2": Case(14, 5, window=14, batch=2, heads=2),
    "windows of 14 that fit": Case(14, 28, window=14),
    "one window of 14, padded": Case(3, 2, window=14, heads=2),
    "windows of 7": Case(15, 9, window=7),
    "windows of 1": Case(3, 4, window=1, heads=2),
    "windows of 16": Case(17, 16, window=16),
    "windows of 17": Case(17, 9, window=17),
    "addresses aligned to 16": Case(5, 7, heads=2, offset=16),
    "without bias, 9x33": Case(9, 33, heads=2, batch=2, with_bias=False),
    "without bias, 5x70": Case(5, 70, with_bias=False),
    "without bias, windows of 14": Case(15, 16, window=14, with_bias=False),
    "all keys alike": Case(5, 19, numbers=all_alike),
    "products of 60000": Case(5, 19, heads=2, numbers=large_products),
    "products of 60000, windows": Case(5, 6, window=4, numbers=large_products),
    "every score -60000": Case(5, 19, numbers=all_far_below),
    "rising scores": Case(5, 19, numbers=rising),
    "slowly rising scores": Case(5, 19, numbers=rising_slowly),
    "falling scores": Case(5, 19, numbers=falling),
    "terms of 60000": Case(5, 19, heads=2, numbers=large_terms),
    "terms of 60000, windows": Case(5, 6, window=4, numbers=large_terms),
    "one term of 60000": Case(9, 18, numbers=one_large_term),
    "largest values": Case(5, 19, numbers=largest_values),
    "smallest values": Case(5, 19, numbers=smallest_values),
    "a query of NaN": Case(3, 19, heads=2, batch=2, numbers=nan_query),
    "a key of NaN": Case(3, 19, heads=2, batch=2, numbers=nan_key),
    "a key of NaN, windows": Case(9, 6, window=4, heads=2, numbers=nan_key),
    "a value of NaN": Case(3, 19, heads=2, batch=2, numbers=nan_value),
    "an infinite value": Case(3, 19, heads=2, batch=2, numbers=infinite_value),
}
