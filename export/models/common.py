"""Layers that encoder and decoder share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of `[B, C, H, W]`.

    Computed channels-last as one `layer_norm`, so that it exports as one LayerNormalization node, whose accumulation
    every runtime keeps in float32.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.channels_last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def channels_last(self, x: Tensor) -> Tensor:
        """The same over the last axis of `[..., C]`."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def softmax(scores: Tensor) -> Tensor:
    """Over the last axis; half precision scores in float32, and back.

    Half precision cannot count the keys of a global layer, as its 11 bits end at 2,048. Torch accumulates in float32
    of its own accord, but an engine builder need not. The casts do not keep it from fusing (docs/attention.md).
    """
    exact = torch.promote_types(scores.dtype, torch.float32)
    return scores.to(exact).softmax(dim=-1).to(scores.dtype)


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer over the last axis of `[..., C]`, seen as one matrix: then it exports as Gemm, bias included."""
    return layer(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


class Mlp(nn.Module):
    """Two linear layers with an activation between them; parameter names as in SAM's checkpoints."""

    def __init__(self, dim: int, hidden_dim: int, activation: nn.Module) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden_dim)
        self.lin2 = nn.Linear(hidden_dim, dim)
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.act(self.lin1(x)))
