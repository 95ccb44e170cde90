"""The stages of an EfficientNet-Lite up to stride 32, as a trunk for another network.

Source: EfficientNet (arXiv:1905.11946) in its Lite form: ReLU6, and no squeeze-and-excitation. Batch norms are folded
into the convolutions before them: what is trained here has none.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from samrt_export.models.config import TrunkConfig

# Of EfficientNet's first six stages. Their shapes do not tell the strides.
STRIDES = (1, 2, 2, 2, 1, 2)
KERNELS = (3, 3, 5, 3, 5, 5)
EXPANSIONS = (1, 6, 6, 6, 6, 6)
# Stages whose output is the last of its resolution: strides of 8, 16 and 32.
OUTPUTS = (2, 4, 5)


class Conv(nn.Conv2d):
    """Convolution with zeros around its input, as the released weights were trained: TensorFlow's "same" at 260 pixels.

    A 3x3 kernel of stride 2 has its zeros right and below, where the input's side is even: down to stride 4.
    """

    def __init__(
        self, in_chans: int, out_chans: int, kernel: int = 1, stride: int = 1, groups: int = 1, lopsided: bool = False
    ) -> None:
        super().__init__(in_chans, out_chans, kernel, stride, 0 if lopsided else kernel // 2, groups=groups)
        self.lopsided = lopsided

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)) if self.lopsided else x)


class InvertedBottleneck(nn.Module):
    """MBConv: wider by a 1x1 convolution, one convolution per channel, narrower again; a residual where it fits."""

    def __init__(self, in_chans: int, out_chans: int, expansion: int, kernel: int, stride: int, lopsided: bool) -> None:
        super().__init__()
        hidden = expansion * in_chans
        self.residual = stride == 1 and in_chans == out_chans
        self.expand = Conv(in_chans, hidden) if expansion > 1 else None
        self.depthwise = Conv(hidden, hidden, kernel, stride, groups=hidden, lopsided=lopsided)
        self.project = Conv(hidden, out_chans)

    def forward(self, x: Tensor) -> Tensor:
        out = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(out)))
        return x + out if self.residual else out


class Trunk(nn.Module):
    """Image to features: float `[B, 3, S, S]`, normalised and padded, to `[B, C, S/8, S/8]`, of S/16 and of S/32."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.stem = Conv(3, config.stem, 3, 2, lopsided=True)
        self.stages = nn.ModuleList()
        chans = config.stem
        for index, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            blocks = []
            for block in range(depth):
                stride = STRIDES[index] if block == 0 else 1
                lopsided = stride == 2 and index == 1
                blocks.append(
                    InvertedBottleneck(chans, width, EXPANSIONS[index], KERNELS[index], stride, lopsided=lopsided)
                )
                chans = width
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, image: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(image))
        outputs = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in OUTPUTS:
                outputs.append(x)
        return outputs
