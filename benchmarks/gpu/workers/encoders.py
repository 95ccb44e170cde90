"""Times of whole image encoders in torch, in half precision: with our kernel as an operator, and with torch's forms.

Each as called and in a CUDA graph, eager and compiled. Compiled is block by block, as all blocks of a kind are one
compilation then; whole, a ViT-H takes minutes. The weights are seeded, as neither time nor memory depends on them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import floors
import torch
from device_input import seeded_image
from driver import Driver
from isolated import Reporter
from models import encoder_configs
from samrt_torch_op import attention as by_kernel
from seeded import seeded_state
from torch import Tensor, nn
from torch_forms import PeerAttention, flex, materialised, sdpa_augmented, sdpa_bias
from torch_timing import measure
from work import Work
from workers.layers import warm_driver

from samrt_export.models.image_encoder_vit import Attention, ImageEncoderViT

SAMRT, COMPILED = "samrt", "compiled by block"
_SECONDS, _SMOKE_SECONDS = 1.0, 0.01
_LEAST_S, _LEAST_TO_COMPILE_S = 5, 25  # not begun with less left
# Bound: a multiple of the error of the same encoder in half precision with the published attention, plus rounding.
_OF_TORCH, _ROUNDING = 2.0, 1e-3


class KernelAttention(nn.Module):
    """`Attention` by `torch.ops.samrt.attention`, which cuts the windows itself."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.rel_pos_h, self.rel_pos_w = attention.rel_pos_h, attention.rel_pos_w
        self.heads, self.head_dim, self.window = attention.num_heads, attention.head_dim, attention.window_size

    def forward(self, x: Tensor) -> Tensor:
        """`[B, H, W, C]` to the same."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, self.head_dim))
        bias = self.qkv.bias.view(3, self.heads, self.head_dim)
        return self.proj(by_kernel(qkv, bias, self.rel_pos_h, self.rel_pos_w, self.window))


FORMS: dict[str, Callable[[Attention], nn.Module]] = {
    SAMRT: KernelAttention,
    "sdpa_bias": lambda attention: PeerAttention(attention, sdpa_bias),
    "sdpa_augmented": lambda attention: PeerAttention(attention, sdpa_augmented),
    "materialised": lambda attention: PeerAttention(attention, materialised),
    "flex_attention": lambda attention: PeerAttention(attention, flex),
}
# flex_attention is fused only when it is compiled.
_EAGER, _TO_COMPILE = list(FORMS)[:4], (SAMRT, "flex_attention", "sdpa_bias", "sdpa_augmented")


def serve(work: Work, report: Reporter) -> None:
    driver, models = warm_driver(work.smoke), list(encoder_configs(work.smoke))
    # Form by form, because compiling all forms of ViT-B first would leave no time for ViT-H.
    jobs = [(model, name, False) for model in models for name in _EAGER]
    jobs += [(model, name, True) for name in (_TO_COMPILE[:1] if work.smoke else _TO_COMPILE) for model in models]
    built: dict[str, _Encoder] = {}

    def encoder(model: str) -> _Encoder:
        if model not in built:
            built[model] = _Encoder(work, driver, model)
        return built[model]

    for model, name, compiled in jobs:
        key = (model, f"{name}, {COMPILED}" if compiled else name)
        if report.is_done(*key):
            continue
        if work.seconds_left < (_LEAST_TO_COMPILE_S if compiled else _LEAST_S):
            report.attempt(*key, call={"absent": f"{work.seconds_left:.0f} s were left"}.copy)
            continue
        report.attempt(model, "error of torch's half precision", call=lambda model=model: encoder(model).error_of_torch)
        report.attempt(model, "floor", call=partial(_floor, work, model))
        times = partial(_times, encoder, model, name, compiled)
        report.attempt(*key, call=times)


def _times(encoder: Callable[[str], _Encoder], model: str, name: str, compiled: bool) -> dict[str, Any]:
    """Times of one form in one encoder, which is built in this attempt where it is the first."""
    return encoder(model).times(name, compiled)


def _floor(work: Work, model: str) -> dict[str, Any]:
    counted = floors.of_encoder(encoder_configs(work.smoke)[model])
    return {**counted, **floors.at_rates(work.of("floors"), counted["operations"], counted["bytes"])}


class _Encoder:
    """A seeded encoder whose attention is exchanged, and what float32 makes of one image."""

    @torch.no_grad()
    def __init__(self, work: Work, driver: Driver | None, model: str) -> None:
        device, config = "cpu" if driver is None else "cuda", encoder_configs(work.smoke)[model]
        self._driver, self._smoke = driver, work.smoke
        with torch.device("meta"):
            self._module = ImageEncoderViT(config)
        self._module.load_state_dict(seeded_state(self._module, 0, device), assign=True)
        self._module.eval().requires_grad_(False)
        self._blocks = list(self._module.blocks)
        self._originals = [block.attn for block in self._blocks]
        self._image = torch.from_numpy(seeded_image(config.image_size)).to(device)
        # On sm_80 and later torch's float32 convolutions use TF32 unless told otherwise.
        torch.backends.cudnn.allow_tf32 = False
        self._expected = self._with("materialised")(self._image)
        # What was exchanged shares the weights, but for the tables of relative positions.
        for block, original in zip(self._blocks, self._originals, strict=True):
            block.attn = original
        self._module.half()
        self.error_of_torch = self._error(self._with("materialised"))

    def times(self, name: str, compiled: bool) -> dict[str, Any]:
        """Times with one form of attention. Raises ValueError if its error is over twice torch's."""
        torch.compiler.reset()
        with torch.no_grad():
            module = self._with(name, compiled)
            error, bound = self._error(module), _OF_TORCH * self.error_of_torch + _ROUNDING
            if not error <= bound:
                raise ValueError(f"differs from float32 by {error:.3g}, at most {bound:.3g}: not timed")
            found = measure(lambda: module(self._image), self._driver, _SMOKE_SECONDS if self._smoke else _SECONDS)
        if self._driver is not None:
            torch.cuda.empty_cache()
        return {"relative_l2_to_float32": error, **found}

    def _with(self, name: str, compiled: bool = False) -> ImageEncoderViT:
        for block, original in zip(self._blocks, self._originals, strict=True):
            block.attn = FORMS[name](original)
        backend = "eager" if self._smoke else "inductor"
        self._module.blocks = nn.ModuleList(
            torch.compile(block, fullgraph=True, dynamic=False, backend=backend) if compiled else block
            for block in self._blocks
        )
        return self._module

    def _error(self, module: ImageEncoderViT) -> float:
        return float((module(self._image).float() - self._expected).norm() / self._expected.norm())
