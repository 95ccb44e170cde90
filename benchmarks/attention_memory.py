"""Scratch memory of an fp16 encoder's attention in TensorRT-RTX, in each of its forms, as the builder reports it.

Nothing runs, so no GPU is needed. samrt's plugin must be installed. If attention is not fused, its scores (heads x
tokens x tokens) are part of the scratch memory. The weights are random, because the builder does not use their values.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from report import add_output, write_report
from torch import Tensor, nn

from samrt.bundle.contract import Graph
from samrt.bundle.contract import Tensor as TensorOf
from samrt.engines.builder.engine import BuildOptions, build_engine
from samrt.engines.flavours import Flavour, import_flavour
from samrt.engines.plugin import prepare_plugin
from samrt.engines.profiles import BuildLimits, ranges
from samrt.progress import SILENT, Lines
from samrt_export.lowering import lower
from samrt_export.lowering.augmented import AugmentedAttention
from samrt_export.models.common import softmax
from samrt_export.models.config import VitConfig
from samrt_export.models.image_encoder_vit import Attention, ImageEncoderViT
from samrt_export.models.windows import partition, unpartition
from samrt_export.onnx_export import export_graph

OUT_CHANS, PATCH, WINDOW = 256, 16, 14
CAPABILITIES = ("8.6",)
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Model:
    name: str
    dim: int
    heads: int
    size: int

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


VIT_B = Model("ViT-B at 1024", 768, 12, 1024)
VIT_B_512 = Model("ViT-B at 512", 768, 12, 512)
VIT_H = Model("ViT-H at 1024", 1280, 16, 1024)


def in_half(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v


def softmax_in_float32(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return softmax(q @ k.transpose(-2, -1)) @ v


def all_accumulated_in_float32(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Casts around each product ask for float32 accumulation; what lies between is half."""
    scores = (q.float() @ k.float().transpose(-2, -1)).to(q.dtype)
    return (softmax(scores).float() @ v.float()).to(q.dtype)


def scores_kept_in_float32(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q.float() @ k.float().transpose(-2, -1)).softmax(dim=-1).to(q.dtype) @ v


class Form(AugmentedAttention):
    """Augmented attention of any width, in windows too, with or without padding the value."""

    def __init__(
        self, attention: Attention, width: int = 0, pad_value: bool = True, attend: Attend = softmax_in_float32
    ) -> None:
        super().__init__(attention)
        self.window_size, self.grid, self.pad_value, self.product = (
            attention.window_size,
            attention.grid,
            pad_value,
            attend,
        )
        self.width = width or self.width
        used = self.head_dim + 2 * self.side
        self.position = F.pad(self.position[:, : 2 * self.side], (0, self.width - used))
        self.out, self.proj = self.proj, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if not self.window_size:
            return self.out(super().forward(x))
        return self.out(unpartition(super().forward(partition(x, self.window_size)), self.window_size, self.grid))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.pad_value:
            v = F.pad(v, (0, self.width - self.head_dim))
        return self.product(*self.augmented(q, k), v)[..., : self.head_dim]


class InHalf(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.half()

    def forward(self, image: Tensor) -> Tensor:
        return self.encoder(image).float()


def encoder_of(model: Model, depth: int, global_blocks: tuple[int, ...]) -> ImageEncoderViT:
    torch.manual_seed(0)
    config = VitConfig(
        model.size, PATCH, model.dim, depth, model.head_dim, 4 * model.dim, OUT_CHANS, WINDOW, global_blocks
    )
    encoder = ImageEncoderViT(config).eval().requires_grad_(False)
    for parameter in encoder.parameters():
        # The builder would remove zeros.
        if not parameter.any():
            parameter.normal_(std=0.02)
    return encoder


def scratch_mb(encoder: nn.Module, size: int, flavour: Flavour) -> float:
    """Scratch memory in MB (1e6 bytes), one image."""
    side = size // PATCH
    graph = Graph(
        "encoder.onnx",
        inputs=(TensorOf("image", "float32", ("batch", 3, size, size)),),
        outputs=(TensorOf("image_embeddings", "float32", ("batch", OUT_CHANS, side, side)),),
    )
    with tempfile.TemporaryDirectory() as folder:
        export_graph(InHalf(encoder), graph, (torch.zeros(2, 3, size, size),), Path(folder), "encoder.weights")
        built = build_engine(
            flavour,
            Path(folder, "encoder.onnx"),
            ranges(graph, BuildLimits()),
            BuildOptions(compute_capabilities=CAPABILITIES),
            SILENT,
        )
    if built.warnings:
        sys.exit(f"the builder warns: {'; '.join(built.warnings)}")
    return round(built.memory["scratch_bytes"] / 1e6, 1)


def with_form(encoder: ImageEncoderViT, make: Callable[[Attention], nn.Module] | None) -> ImageEncoderViT:
    for block in encoder.blocks:
        block.attn = make(block.attn) if make else block.attn
    return encoder


def one_kind(model: Model, kind: str, make: Callable[[Attention], nn.Module] | None, flavour: Flavour) -> float:
    """Two blocks of one kind, so that the memory of the other kind does not hide the result."""
    encoder = encoder_of(model, depth=2, global_blocks=(0, 1) if kind == "global" else ())
    return scratch_mb(with_form(encoder, make), model.size, flavour)


def forms_of(model: Model, kind: str) -> dict[str, Callable[[Attention], nn.Module] | None]:
    side = model.size // PATCH if kind == "global" else WINDOW
    narrowest = -(-(model.head_dim + 2 * side) // 16) * 16
    widths = {
        narrowest,
        narrowest + 16,
        *((128,) if kind == "window" else (192, 224, 256, 272) if side == 64 else (192, 256)),
    }
    augmented = {
        f"augmented, all {width} wide": lambda attention, width=width: Form(attention, width)
        for width in sorted(widths)
        if width >= narrowest
    }
    value = f"augmented, value {model.head_dim} wide"
    return {"dense": None, value: lambda attention: Form(attention, pad_value=False), **augmented}


def accumulations(flavour: Flavour) -> dict[str, float]:
    products = (in_half, softmax_in_float32, all_accumulated_in_float32, scores_kept_in_float32)
    return {
        attend.__name__: one_kind(
            VIT_B, "global", lambda attention, attend=attend: Form(attention, attend=attend), flavour
        )
        for attend in products
    }


def whole_encoders(flavour: Flavour) -> dict[str, float]:
    """ViT-B with its twelve blocks: as lowered, and with augmented windows."""
    figures = {}
    for lowering in ("dense", "augmented", "plugin"):
        encoder = encoder_of(VIT_B, 12, (2, 5, 8, 11))
        lower(encoder, lowering)
        figures[lowering] = scratch_mb(encoder, VIT_B.size, flavour)
    encoder = encoder_of(VIT_B, 12, (2, 5, 8, 11))
    figures["augmented, windows too"] = scratch_mb(with_form(encoder, Form), VIT_B.size, flavour)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_output(parser)
    arguments = parser.parse_args()
    flavour = import_flavour("tensorrt_rtx")
    prepare_plugin(flavour, CAPABILITIES, Lines(print))
    layers: dict[str, Any] = {}
    for model in (VIT_B, VIT_B_512, VIT_H):
        for kind in ("global", "window"):
            for form, make in forms_of(model, kind).items():
                figure = one_kind(model, kind, make, flavour)
                layers.setdefault(model.name, {}).setdefault(kind, {})[form] = figure
                print(f"{model.name:14} {kind:7} {form:27} {figure:7.1f} MB", flush=True)
    report = {
        "benchmark": "attention_memory",
        "runtime": flavour.title,
        "compute_capability": CAPABILITIES[0],
        "precision": "fp16",
        "scratch_mb": {
            "two blocks of one kind": layers,
            "accumulation, two global blocks of ViT-B at 1024, 192 wide": accumulations(flavour),
            "whole ViT-B at 1024": whole_encoders(flavour),
        },
    }
    for title in list(report["scratch_mb"])[1:]:
        print(title, report["scratch_mb"][title])
    if arguments.output:
        write_report(arguments.output, report)


if __name__ == "__main__":
    main()
