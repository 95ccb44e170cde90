"""What the model families share: reading sizes off parameter shapes, and loading strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from samrt.bundle.contract import (
    IMAGE_ENCODER,
    MASK_DECODER,
    Contract,
    Feature,
    Geometry,
    MaskOutputs,
    Normalization,
)
from samrt.errors import BundleError
from samrt_export.models.config import DecoderConfig
from samrt_export.models.sam import DecoderGraph, EncoderGraph, Sam
from samrt_export.state import listed

State = Mapping[str, Tensor]
# From a whole model and the number format inside to the module of one graph.
GraphModule = Callable[[Sam, torch.dtype], nn.Module]
SAM_MODULES: Mapping[str, GraphModule] = {IMAGE_ENCODER: EncoderGraph, MASK_DECODER: DecoderGraph}

# Of SAM's own decoder: the single mask and the ambiguous three.
_MASK_TOKENS = 4


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to export.

    `sam` is float32, in evaluation mode and without gradients; `contract` is what its graphs take and return, and
    `modules` are what computes them, by role. `notes` say, each in one line, what was not taken as the
    file has it.
    """

    family: str
    variant: str
    sam: Sam
    contract: Contract
    modules: Mapping[str, GraphModule] = field(default_factory=lambda: SAM_MODULES)
    notes: tuple[str, ...] = ()

    @property
    def image_size(self) -> int:
        """Side of the image encoder's input in pixels."""
        return self.contract.geometry.encoder_side

    def module(self, role: str, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The graph of a role as a module; its inputs and outputs are in the order of the contract's graph.

        Changes the number format of `sam`.
        """
        return self.modules[role](self.sam, dtype)


def shape_of(state: State, name: str, *expected: int | None) -> tuple[int, ...]:
    """The shape of a parameter.

    Raises:
        BundleError: it is absent, has another number of axes than `expected`, an axis of another length (None: any),
            or an empty one.
    """
    if name not in state:
        raise BundleError(f"the parameter {name} is missing")
    shape = tuple(state[name].shape)
    fits = len(shape) == len(expected) and all(n > 0 and e in (None, n) for n, e in zip(shape, expected, strict=True))
    if not fits:
        pattern = ", ".join("any" if e is None else str(e) for e in expected)
        raise BundleError(f"{name} has the shape {list(shape)}, expected [{pattern}]")
    return shape


def table_of(state: State, name: str, *shape: int) -> Tensor:
    """A table of positions that can be resized.

    Raises:
        BundleError: it is absent, of another shape or not of floating point.
    """
    shape_of(state, name, *shape)
    if not state[name].is_floating_point():
        raise BundleError(f"{name} has the type {state[name].dtype}, expected one of floating point")
    return state[name]


def count(state: State, prefix: str) -> int:
    """How many of `{prefix}0.`, `{prefix}1.`, ... are there."""
    indices = {name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)}
    number = 0
    while str(number) in indices:
        number += 1
    return number


def read_decoder(state: State, encoder_chans: int, image_size: int, embedding_size: int) -> DecoderConfig:
    """The sizes of SAM's prompt encoder and mask decoder, for images and embeddings of these sides.

    Raises:
        BundleError: a parameter that tells a size is missing or misshapen, or a size cannot be used or does not fit
            the encoder's output channels.
    """
    mask_tokens, embed_dim = shape_of(state, "mask_decoder.mask_tokens.weight", None, None)
    if embed_dim != encoder_chans:
        raise BundleError(
            f"the encoder's embedding has {encoder_chans} channels and the mask decoder's {embed_dim}: they are of two "
            "different models"
        )
    if mask_tokens != _MASK_TOKENS:
        raise BundleError(
            f"the mask decoder predicts {mask_tokens} masks, expected {_MASK_TOKENS} (one single, three more)"
        )
    head = "mask_decoder.iou_prediction_head.layers"
    layers = "mask_decoder.transformer.layers"
    config = DecoderConfig(
        embed_dim=embed_dim,
        image_size=image_size,
        embedding_size=embedding_size,
        mask_in_chans=shape_of(state, "prompt_encoder.mask_downscaling.3.weight", None, None, 2, 2)[0],
        depth=count(state, f"{layers}."),
        mlp_dim=shape_of(state, f"{layers}.0.mlp.lin1.weight", None, embed_dim)[0],
        num_mask_tokens=mask_tokens,
        iou_head_hidden_dim=shape_of(state, f"{head}.0.weight", None, embed_dim)[0],
        iou_head_depth=count(state, f"{head}."),
    )
    # The inner width of the cross attention is half of the embedding's.
    if embed_dim % (2 * config.num_heads):
        raise BundleError(
            f"the mask decoder's width is {embed_dim}, expected a multiple of {2 * config.num_heads} "
            f"({config.num_heads} attention heads)"
        )
    return config


def sam_contract(decoder: DecoderConfig, normalization: Normalization) -> Contract:
    """The contract of SAM's own design: one feature, one frame, low-res masks of four times the feature's side."""
    grid = decoder.embedding_size
    return Contract(
        Geometry(decoder.image_size, decoder.image_size, 4 * grid, normalization),
        (Feature("image_embeddings", (decoder.embed_dim, grid, grid)),),
        MaskOutputs(count=decoder.num_mask_tokens),
    )


def load_strictly(build: Callable[[], Sam], state: State, layout: str) -> Sam:
    """Build a model around the tensors of `state`, without a copy; `layout` names it in messages.

    Buffers that are not in the checkpoint (`persistent=False`) must be made with `device="cpu"`.

    Raises:
        BundleError: a parameter is missing, unexpected, of another shape or not of floating point.
    """
    # On the meta device nothing is allocated or initialised: a ViT-H never exists twice.
    with torch.device("meta"):
        sam = build()
    _check_layout(sam.state_dict(), state, layout)
    sam.load_state_dict(dict(state), strict=True, assign=True)
    # torch computes with values that are not there without a word.
    assert not [name for name, buffer in sam.named_buffers() if buffer.is_meta and name not in state]
    return sam.eval().requires_grad_(False)


def _check_layout(expected: State, state: State, layout: str) -> None:
    common = [name for name in expected if name in state]
    problems = [
        _listed("missing", [name for name in expected if name not in state]),
        _listed("unexpected", [name for name in state if name not in expected]),
        _listed(
            "of another shape",
            [
                f"{name} {list(state[name].shape)} instead of {list(expected[name].shape)}"
                for name in common
                if state[name].shape != expected[name].shape
            ],
        ),
        _listed(
            "of another type",
            [
                f"{name} {state[name].dtype} instead of {expected[name].dtype}"
                for name in common
                if state[name].dtype != expected[name].dtype
            ],
        ),
    ]
    found = "; ".join(problem for problem in problems if problem)
    if found:
        raise BundleError(f"the parameters do not fit {layout}: {found}")


def _listed(problem: str, names: list[str]) -> str:
    return f"{len(names)} {problem} ({listed(names)})" if names else ""
