"""Batch norms folded into the convolutions before them."""

from __future__ import annotations

import torch
from torch import nn

from samrt_export.models.tiny_vit import ConvNorm


def fold(layer: ConvNorm) -> nn.Conv2d:
    """One convolution that computes the same.

    Engine builders fold as well, but only after the weights of a half precision graph were rounded, each factor by
    itself. Folded in float64, the product is rounded once.
    """
    conv, norm = layer.c, layer.bn
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    folded = nn.utils.skip_init(
        nn.Conv2d,
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        groups=conv.groups,
    )
    with torch.no_grad():
        folded.weight.copy_(conv.weight.double() * factor[:, None, None, None])
        folded.bias.copy_(norm.bias.double() - norm.running_mean.double() * factor)
    return folded.requires_grad_(False)
