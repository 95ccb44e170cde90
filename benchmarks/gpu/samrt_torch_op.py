"""samrt's attention as a torch operator, `torch.ops.samrt.attention`: for tests and benchmarks, not for the runtime.

It uses torch's memory by address and torch's current stream, and allocates its result with torch. It has a fake
implementation for shapes, so it works under torch.compile and in CUDA graphs. With the tests' library for the CPU, it
takes tensors on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from samrt.kernels.library import AttentionShape, AttentionTensors, load_kernels

_PRECISIONS = {torch.float16: "fp16", torch.bfloat16: "bf16"}
_HOST = ("host",)  # what the tests' library says of its architectures


@torch.library.custom_op(
    "samrt::attention",
    mutates_args=(),
    schema="(Tensor qkv, Tensor? qkv_bias, Tensor? rel_pos_h, Tensor? rel_pos_w, int window=0, int tile=-1) -> Tensor",
)
def attention(
    qkv: Tensor,
    qkv_bias: Tensor | None,
    rel_pos_h: Tensor | None,
    rel_pos_w: Tensor | None,
    window: int = 0,
    tile: int = -1,
) -> Tensor:
    """Multi-head attention with decomposed relative position; `samrt_attention` of kernels/samrt_kernels.h.

    Args:
        qkv: float16 or bfloat16 [B, H, W, 3, heads, d], contiguous, bias included; the others have its type and device.
        qkv_bias: [3, heads, d]; needed where windows reach past the grid.
        rel_pos_h, rel_pos_w: [2 * side - 1, d], where side is the window, or H and W. None together: no bias.
        window: side of a window in tokens; 0 for attention over the whole grid.
        tile: index of a tile shape; -1 for the default shape.

    Returns:
        [B, H, W, heads * d].

    Raises:
        ValueError: a tensor has another shape, type, device or layout than said above.
        BackendError: the kernel refused the sizes, or CUDA reported an error.
    """
    _check(qkv, qkv_bias, rel_pos_h, rel_pos_w, window)
    kernels = load_kernels()
    if (qkv.device.type == "cpu") != (kernels.architectures == _HOST):
        raise ValueError(f"qkv is on {qkv.device}, and {kernels.path} is for {', '.join(kernels.architectures)}")
    out = _like_result(qkv)
    batch, grid_h, grid_w, _, heads, head_dim = qkv.shape
    kernels.attention(
        AttentionShape(batch, grid_h, grid_w, heads, head_dim, window, _PRECISIONS[qkv.dtype]),  # type: ignore[arg-type]
        AttentionTensors(qkv.data_ptr(), out.data_ptr(), *map(_address, (qkv_bias, rel_pos_h, rel_pos_w))),
        stream=torch.cuda.current_stream(qkv.device).cuda_stream if qkv.is_cuda else 0,
        tile=None if tile < 0 else tile,
    )
    return out


@attention.register_fake
def _(
    qkv: Tensor,
    qkv_bias: Tensor | None,
    rel_pos_h: Tensor | None,
    rel_pos_w: Tensor | None,
    window: int = 0,
    tile: int = -1,
) -> Tensor:
    _check(qkv, qkv_bias, rel_pos_h, rel_pos_w, window)
    return _like_result(qkv)


def _like_result(qkv: Tensor) -> Tensor:
    batch, grid_h, grid_w, _, heads, head_dim = qkv.shape
    return qkv.new_empty(batch, grid_h, grid_w, heads * head_dim)


def _check(
    qkv: Tensor, qkv_bias: Tensor | None, rel_pos_h: Tensor | None, rel_pos_w: Tensor | None, window: int
) -> None:
    """Checks what the kernel cannot check, because it gets only addresses."""
    if qkv.dim() != 6 or qkv.shape[3] != 3 or qkv.dtype not in _PRECISIONS:
        raise ValueError(f"qkv is float16 or bfloat16 [B, H, W, 3, heads, d], not {qkv.dtype} {list(qkv.shape)}")
    _, grid_h, grid_w, _, heads, head_dim = qkv.shape
    expected = {
        "qkv": (qkv, tuple(qkv.shape)),
        "qkv_bias": (qkv_bias, (3, heads, head_dim)),
        "rel_pos_h": (rel_pos_h, (2 * (window or grid_h) - 1, head_dim)),
        "rel_pos_w": (rel_pos_w, (2 * (window or grid_w) - 1, head_dim)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape or (tensor.dtype, tensor.device) != (qkv.dtype, qkv.device):
            raise ValueError(
                f"{name} is {tensor.dtype} {list(tensor.shape)} on {tensor.device}; wanted: {qkv.dtype} {list(shape)} "
                f"on {qkv.device}"
            )
        if not tensor.is_contiguous():
            raise ValueError(f"{name} is not contiguous")


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
