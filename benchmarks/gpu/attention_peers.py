"""One attention layer in samrt's kernels and in torch. Each contender is a call without arguments, to be timed.

All contenders read the projected q, k, v and return tokens [B, H, W, heads * d], so both linear layers are excluded
from every contender's time. In windowed layers, torch's times include the window partition before the first linear
layer and the merge of the windows after the attention. What depends only on the weights and the grid (tables by offset,
one-hot rows) is computed before the call, for torch too. So is a bias "made beforehand".
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
import torch_forms
from goals import AUGMENTED, BIAS_BUILT, BIAS_READY, DEFAULT_TILE, FLASH, NO_BIAS
from kernel_library import AttentionKernel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch_attention import Inputs, by_kernel, by_offset, dense, heads_of, rel_pos_terms, tokens_of

from samrt_export.models.windows import partition

Call = Callable[[], Tensor]

CUDNN = "torch cuDNN attention without bias"
_FUSED = "_scaled_dot_product_"  # how torch's names of its fused operators begin
# Beside torch's own choice. Flash attention takes no mask.
_WITH_MASK = ("CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")


def of_samrt(inputs: Inputs, kernels: list[AttentionKernel]) -> dict[str, Call]:
    """Our kernels, by name: the default tile shape, every tile shape, and those without bias."""
    plain = replace(inputs, rel_pos_h=None, rel_pos_w=None)
    calls = {}
    for kernel in kernels:
        name = f"{NO_BIAS}, {kernel.tile_name}" if not kernel.with_bias else f"samrt, {kernel.tile_name}"
        calls[DEFAULT_TILE if kernel.tile < 0 else name] = functools.partial(
            by_kernel, inputs if kernel.with_bias else plain, kernel.tile
        )
    return calls


def of_torch(inputs: Inputs) -> dict[str, Callable[[], Call]]:
    """torch's contenders. Each is created only when it is called, because the dense bias takes gigabytes."""
    tables = _tables_by_offset(inputs)
    # The output of the first linear layer; with windows [B * windows, ...], as torch has it at this point.
    q, k, v = _separately(inputs)

    def bias_built() -> Call:
        return lambda: torch_forms.sdpa_bias(q, k, v, *rel_pos_terms(q, *tables))

    def bias_ready() -> Call:
        rel_h, rel_w = rel_pos_terms(q, *tables)
        mask = _in_aligned_rows((rel_h[..., :, None] + rel_w[..., None, :]).flatten(-2))
        return lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def without_bias() -> Call:
        return lambda: F.scaled_dot_product_attention(q, k, v)

    def augmented() -> Call:
        side_h, side_w = (table.shape[0] for table in tables)
        d, wanted = q.shape[-1], side_h + side_w
        fill = -(d + wanted) % 16
        of_key = _one_hot_rows(side_h, side_w, fill, q)
        of_query = q.new_zeros(fill).expand(*q.shape[:3], -1)

        def call() -> Tensor:
            """`torch_forms.sdpa_augmented`, with the one-hot rows and the padding computed before."""
            wide_q = torch.cat([q * d**-0.5, *rel_pos_terms(q, *tables), of_query], dim=-1)
            wide_k = torch.cat([k, of_key], dim=-1)
            wide_v = F.pad(v, (0, wanted + fill))
            return F.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=1.0)[..., :d]

        return call

    # On a CPU, torch has only its own choice and MATH. MATH's scores of eight images would take gigabytes.
    backends = [name for name in _WITH_MASK if (len(inputs.qkv) == 1 if name == "MATH" else inputs.qkv.is_cuda)]
    makers = {
        FLASH: _by_backend("FLASH_ATTENTION", without_bias),
        BIAS_READY: bias_ready,
        BIAS_BUILT: bias_built,
        AUGMENTED: augmented,
        **{f"{BIAS_READY}, {name}": _by_backend(name, bias_ready) for name in backends},
        **{f"{BIAS_BUILT}, {name}": _by_backend(name, bias_built) for name in backends},
        **({CUDNN: _by_backend("CUDNN_ATTENTION", without_bias)} if inputs.qkv.is_cuda else {}),
    }
    return {name: functools.partial(_in_tokens, inputs, make) for name, make in makers.items()}


def backend_of(call: Call) -> str:
    """Which of torch's attention operators a call runs, by name: torch's own choice if no backend was set."""
    called = Operators()
    with torch.no_grad(), called:
        call()
    fused = (name for name in called.names if name.startswith(_FUSED))
    return ", ".join(sorted(name.removeprefix(_FUSED) for name in fused)) or "math"


class Operators(TorchDispatchMode):
    """The names of torch's operators that were called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def _by_backend(name: str, make: Callable[[], Call]) -> Callable[[], Call]:
    backend = getattr(SDPBackend, name)

    def made() -> Call:
        attend = make()

        def call() -> Tensor:
            with sdpa_kernel(backend):
                return attend()

        return call

    return made


def compiled_flex(inputs: Inputs, apart: bool, backend: str = "inductor") -> Call:
    """torch's flex_attention with the decomposed bias in its kernel; the first call compiles it, for seconds.

    The bias's terms, which that kernel reads, are made in the same compiled graph, or `apart` from it, before.
    """

    def attend(q: Tensor, k: Tensor, v: Tensor, table_h: Tensor, table_w: Tensor) -> Tensor:
        return torch_forms.flex(q, k, v, *rel_pos_terms(q, table_h, table_w))

    torch.compiler.reset()
    compiled: Any = torch.compile(torch_forms.flex if apart else attend, fullgraph=True, dynamic=False, backend=backend)
    q, k, v = _separately(inputs)
    tables = _tables_by_offset(inputs)
    if apart:
        return _in_tokens(inputs, lambda: lambda: compiled(q, k, v, *rel_pos_terms(q, *tables)))
    return _in_tokens(inputs, lambda: lambda: compiled(q, k, v, *tables))


def float32_reference(inputs: Inputs, with_bias: bool) -> Tensor:
    """The definition in float32, of the first image, one head at a time as all scores would take gigabytes."""
    heads = []
    for head in range(inputs.qkv.shape[4]):
        one = replace(inputs, qkv=inputs.qkv[:1, ..., head : head + 1, :], qkv_bias=inputs.qkv_bias[:, head : head + 1])
        one = one if with_bias else replace(one, rel_pos_h=None, rel_pos_w=None)
        heads.append(dense(one.to(torch.float32)))
    return torch.cat(heads, dim=-1)


def operations(inputs: Inputs) -> int:
    """Of the dense mathematics: scores, bias terms and weighted values, windows padded as published."""
    q, _, _ = heads_of(inputs)
    windows, heads, tokens, head_dim = q.shape
    sides = sum((table.shape[0] + 1) // 2 for table in _tables(inputs))
    return 2 * windows * heads * tokens * head_dim * (2 * tokens + sides)


def moved_bytes(inputs: Inputs) -> int:
    """Bytes that cannot but cross memory: q, k, v and tables in, the result out."""
    tensors = (inputs.qkv, inputs.qkv_bias, *_tables(inputs))
    out = inputs.qkv.numel() // 3
    return inputs.qkv.element_size() * (sum(tensor.numel() for tensor in tensors) + out)


def _tables(inputs: Inputs) -> tuple[Tensor, Tensor]:
    assert inputs.rel_pos_h is not None
    assert inputs.rel_pos_w is not None
    return inputs.rel_pos_h, inputs.rel_pos_w


def _tables_by_offset(inputs: Inputs) -> tuple[Tensor, Tensor]:
    rel_pos_h, rel_pos_w = _tables(inputs)
    return by_offset(rel_pos_h), by_offset(rel_pos_w)


def _in_aligned_rows(mask: Tensor) -> Tensor:
    """The same mask with rows a multiple of 8 apart: torch's memory-efficient kernel copies any other in each call."""
    keys = mask.shape[-1]
    return F.pad(mask, (0, -keys % 8))[..., :keys] if keys % 8 else mask


def _one_hot_rows(side_h: int, side_w: int, fill: int, like: Tensor) -> Tensor:
    """For each key 1 at its row and at its column, then zeros: [B * windows, heads, tokens, side_h + side_w + fill]."""
    rows = torch.eye(side_h, dtype=like.dtype, device=like.device).repeat_interleave(side_w, dim=0)
    columns = torch.eye(side_w, dtype=like.dtype, device=like.device).repeat(side_h, 1)
    return F.pad(torch.cat([rows, columns], dim=-1), (0, fill)).expand(*like.shape[:2], -1, -1)


def _separately(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v as views of one packed tensor of their own."""
    if not inputs.window:
        return heads_of(inputs)
    packed = torch.stack([tensor.transpose(1, 2) for tensor in heads_of(inputs)], dim=2)
    q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _in_tokens(inputs: Inputs, make: Callable[[], Call]) -> Call:
    attend = make()
    if not inputs.window:
        return lambda: tokens_of(attend(), inputs)
    tokens = inputs.qkv[..., 0, :, :].flatten(3).contiguous()  # stands in for the normalised tokens

    def call() -> Tensor:
        partition(tokens, inputs.window)
        return tokens_of(attend(), inputs)

    return call
