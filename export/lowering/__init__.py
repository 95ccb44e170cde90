"""Forms of SAM's attention: the same mathematics, shaped for the runtime that will execute it.

`dense` is the reference and lives in the model; all it changes are batch norms, which it folds into convolutions. The
others replace modules of the encoder before export.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from samrt.engines.plugin import PLUGIN_LOWERING
from samrt.errors import InputError, Remedy
from samrt_export.lowering.augmented import augment
from samrt_export.lowering.chunked import ChunkedAttention, ChunkedMlp
from samrt_export.lowering.folded import fold
from samrt_export.lowering.plugin import PluginAttention, check_plugin_fits
from samrt_export.models.common import Mlp
from samrt_export.models.image_encoder_vit import Attention
from samrt_export.models.tiny_vit import ConvNorm

REPLACEMENTS: dict[str, dict[type[nn.Module], Callable[..., nn.Module]]] = {
    "dense": {ConvNorm: fold},
    "chunked": {Attention: ChunkedAttention, Mlp: ChunkedMlp},
    "augmented": {Attention: augment},
    PLUGIN_LOWERING: {Attention: PluginAttention},
}
LOWERINGS = tuple(REPLACEMENTS)


def resolve(lowering: str, encoder: nn.Module, precision: str) -> str:
    """The lowering to use: `auto` is `chunked` in fp32 (ONNX Runtime, CPU) and `augmented` in fp16 (TensorRT).

    Encoders without decomposed relative position have one form, `dense`.

    Raises:
        InputError: an unknown lowering, or one that this encoder does not have, in this precision.
    """
    if lowering not in ("auto", *LOWERINGS):
        raise InputError(f"unknown lowering {lowering!r}; choose one of auto, {', '.join(LOWERINGS)}")
    if not any(isinstance(module, Attention) for module in encoder.modules()):
        if lowering not in ("auto", "dense"):
            raise InputError(
                f"lowering {lowering!r} is for encoders with decomposed relative position; "
                f"{type(encoder).__name__} has none",
                Remedy("use {lowering}", {"lowering": "auto"}),
            )
        return "dense"
    if lowering == PLUGIN_LOWERING:
        check_plugin_fits(encoder, precision)
    if lowering != "auto":
        return lowering
    return "augmented" if precision == "fp16" else "chunked"


def lower(encoder: nn.Module, lowering: str) -> None:
    """Replace modules of `encoder` in place, by a lowering that `resolve` returned."""
    replacements = REPLACEMENTS[lowering]
    for name, module in list(encoder.named_modules()):
        if replacement := replacements.get(type(module)):
            encoder.set_submodule(name, replacement(module))
