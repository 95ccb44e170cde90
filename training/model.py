"""The model in training: where its weights start from, and both halves on batches of images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from samrt.errors import BundleError, InputError
from samrt_export.families import build_model
from samrt_export.families.vit_blocks import PIXEL_MEAN, PIXEL_STD
from samrt_export.models.config import ConvVitConfig
from samrt_export.models.conv_vit import ConvViT
from samrt_export.models.image_encoder_vit import ImageEncoderViT
from samrt_export.models.sam import Sam
from training.attention import train_fused
from training.efficientnet import trunk_state
from training.losses import mask_losses, true_iou
from training.recipes import Recipe, Stage

_UNTRAINED_STAGES = 2  # of the trunk, besides its stem: down to stride 4
# What a run uses of LiteMedSAM: also the end of the neck, which gives embeddings the scale that the decoder expects.
TAKEN = ("prompt_encoder.", "mask_decoder.", *(f"image_encoder.neck.{layer}." for layer in (1, 2, 3)))


def initial_state(
    recipe: Recipe, decoder: Mapping[str, Tensor], patches: Tensor | None, trunk: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The state dict that a run starts from, at its first stage's side.

    Args:
        decoder: LiteMedSAM's state dict, for the prompt encoder, the mask decoder and the end of the encoder's neck.
        patches: float [N, 3, patch, patch], normalised patches of training images, which the first layer whitens; None
            where the recipe has a trunk.
        trunk: the released weights of the recipe's trunk (training.efficientnet), where it has one.
    """
    torch.manual_seed(recipe.seed)
    sam = _sam(recipe)
    encoder = sam.image_encoder
    assert isinstance(encoder, ConvViT | ImageEncoderViT)
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    if isinstance(encoder, ImageEncoderViT):
        assert patches is not None
        encoder.pos_embed.data = sine_positions(encoder.pos_embed.shape[1], recipe.width)
        weight, bias = whitening(patches, recipe.width)
        encoder.patch_embed.proj.weight.data, encoder.patch_embed.proj.bias.data = weight, bias
    elif trunk is None:
        raise InputError("this recipe starts from a pretrained trunk; give the file of its weights with --trunk")
    else:
        encoder.trunk.load_state_dict(trunk_state(trunk, encoder.config.trunk))
    state = sam.state_dict()
    lacking = [name for name in state if name.startswith(TAKEN) and name not in decoder]
    if lacking:
        raise BundleError(f"the checkpoint to take the decoder from lacks {lacking[0]} and {len(lacking) - 1} more")
    state.update({name: decoder[name] for name in state if name.startswith(TAKEN)})
    return state


def given_state(recipe: Recipe, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All weights of a trained model as the state dict that a run starts from, at its first stage's side.

    Raises:
        BundleError: the model is of another network than the recipe's.
    """
    given = PromptableModel(state, recipe.stages[0].side).sam.state_dict()
    with torch.device("meta"):
        expected = _sam(recipe).state_dict()
    # As in `initial_state`, the decoder's sizes are its own.
    encoder = [name for name in expected if name.startswith("image_encoder.")]
    if given.keys() != expected.keys() or any(given[name].shape != expected[name].shape for name in encoder):
        raise BundleError(
            "the weights to start from are of another network than this recipe's; give a model of its own"
        )
    return given


def _sam(recipe: Recipe) -> Sam:
    """A recipe's network at its first stage's side, with torch's own first weights."""
    side = recipe.stages[0].side
    vit = recipe.encoder(side)
    encoder = ConvViT(ConvVitConfig(recipe.trunk, vit)) if recipe.trunk else ImageEncoderViT(vit)
    return Sam(encoder, recipe.decoder(side))


def sine_positions(grid: int, width: int) -> Tensor:
    """Sines and cosines of row and column (Vaswani et al., arXiv:1706.03762): `[1, grid, grid, width]`, small."""
    frequencies = torch.exp(-math.log(100.0) * torch.arange(width // 4) / (width // 4))
    angles = torch.arange(grid)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = line[:, None].expand(-1, grid, -1), line[None].expand(grid, -1, -1)
    return 0.1 * torch.cat([rows, columns], dim=2)[None]


def whitening(patches: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a patch embedding whose outputs are uncorrelated and of about the same size.

    In photographs nearly all variance is brightness. Without whitening, the LayerNorm would hide the edges, which masks
    follow.
    """
    flat = patches.flatten(1).double()
    mean = flat.mean(0)
    values, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    values, vectors = values.flip(0)[:width], vectors.flip(1)[:, :width]
    # Not complete whitening, which would make noise as strong as edges.
    matrix = (vectors / (values + 1e-2 * values.sum()).sqrt()).T
    missing = width - len(matrix)
    if missing > 0:
        matrix = torch.cat([matrix, torch.zeros(missing, matrix.shape[1], dtype=matrix.dtype)])
    weight = matrix.reshape(width, *patches.shape[1:])
    return weight.float(), (-matrix @ mean).float()


class PromptableModel(nn.Module):
    """A `Sam` in training."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, state: Mapping[str, Tensor], side: int, whole_half: bool = False) -> None:
        """From a state dict of any side; its position tables are resized to `side` as an export would.

        Raises:
            BundleError: the weights are of no family that is trained here.
        """
        super().__init__()
        loaded = build_model({name: tensor.detach().clone() for name, tensor in state.items()}, side)
        if loaded.contract.geometry.normalization.kind != "mean_std":
            raise BundleError(
                f"a {loaded.family} model cannot be trained here: its images are normalised in another way"
            )
        self.side, self.whole_half, self.edge_weight = side, whole_half, 0.0
        self.sam = loaded.sam.requires_grad_(True)
        train_fused(self.sam.image_encoder)
        self.attempt = self._attempt
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).reshape(3, 1, 1), persistent=False)

    def begin(self, stage: Stage) -> None:
        """Apply a stage's settings: the weight of edges in the loss, and which stages of the trunk are trained."""
        self.edge_weight = stage.edge_weight
        # Gradients that the rehearsal left on frozen parameters would count in the clipping of gradients.
        self.zero_grad(set_to_none=True)
        encoder = self.sam.image_encoder
        if isinstance(encoder, ConvViT):
            encoder.trunk.requires_grad_(bool(stage.trunk_lr))
            for part in (encoder.trunk.stem, *encoder.trunk.stages[:_UNTRAINED_STAGES]):
                part.requires_grad_(False)

    def compile_parts(self, by_blocks: bool = False) -> None:
        """Let torch compile and fuse the operations of a step: takes minutes once, then steps are faster.

        Args:
            by_blocks: compile only the blocks of the encoder. Those with windows share one compiled form, those without
                windows another: far less to compile, but steps may be slower. Backward passes are then compiled
                together with forward passes in the calling thread, where a signal can end it; on a GPU they run in
                another thread.
        """
        # Each side and number of rounds is compiled separately; by default torch stops compiling after the eighth.
        torch._dynamo.config.recompile_limit = 64
        encoder = self.sam.image_encoder
        if by_blocks:
            torch._functorch.config.force_non_lazy_backward_lowering = True
            assert isinstance(encoder, ConvViT | ImageEncoderViT)
            for block in encoder.blocks:
                block.compile(dynamic=False)
        # On a CPU, compiling saves a third of the decoder's time. A trunk takes minutes and did not become faster.
        elif not (isinstance(encoder, ConvViT) and self.pixel_mean.device.type == "cpu"):
            encoder.compile(dynamic=False)
        self.attempt = torch.compile(self._attempt, dynamic=False)

    def encode(self, images: Tensor, valid: Tensor) -> Tensor:
        """uint8 `[B, 3, S, S]` RGB, of which `valid` bool `[B, 1, S, S]` is not padding, to `[B, h*w, C]` tokens."""
        normalised = (images.float() - self.pixel_mean) / self.pixel_std * valid
        return self._called(self.sam.image_encoder, normalised).flatten(2).transpose(1, 2)

    def decode(self, tokens: Tensor, points: Tensor, labels: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Masks of P prompts, each with its own image.

        Args:
            tokens: `[P, h*w, C]`.
            points: float32 `[P, N, 2]`, (x, y) in pixels of the padded input.
            labels: int64 `[P, N]`; 1 foreground, 0 background, 2 and 3 box corners, -1 padding.
            mask: float32 `[P, 1, L, L]` logits of the round before, or None.

        Returns:
            logits `[P, 4, L, L]` and predicted IoU `[P, 4]`, both float32.
        """
        prompts = self.sam.prompt_encoder
        with torch.autocast(tokens.device.type, enabled=False):
            prompt = prompts.embed_points(points, labels)
            image_pe = prompts.pe_layer.of_grid(prompts.embedding_size)
        if mask is None:
            dense = prompts.no_mask_embed.weight
        else:
            dense = self._called(prompts.mask_downscaling, mask).flatten(2).transpose(1, 2)
        masks, iou = self._called(
            self.sam.mask_decoder, tokens + (dense.to(tokens.dtype) if self.whole_half else dense), image_pe, prompt
        )
        return masks.float(), iou.float()

    def _attempt(
        self, tokens: Tensor, points: Tensor, labels: Tensor, mask: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`decode`, and each mask's loss and true IoU, `[P, 4]`, against coverages `[P, L, L]`."""
        logits, predicted = self.decode(tokens, points, labels, mask)
        return logits, predicted, mask_losses(logits, targets, self.edge_weight), true_iou(logits, targets)

    def _called(self, module: nn.Module, *inputs: Tensor) -> Any:
        """The module's outputs; under autocast in its type throughout, weights included, where `whole_half` says so."""
        device = inputs[0].device.type
        if not self.whole_half or not torch.is_autocast_enabled(device):
            return module(*inputs)
        dtype = torch.get_autocast_dtype(device)
        weights = {name: tensor.to(dtype) for name, tensor in chain(module.named_parameters(), module.named_buffers())}
        with torch.autocast(device, enabled=False):
            return functional_call(module, weights, tuple(each.to(dtype) for each in inputs))
