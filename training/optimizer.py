"""The optimizer of a run: groups of parameters with one learning rate, and which of them have weight decay."""

from __future__ import annotations

import torch
from torch import Tensor

from training.model import PromptableModel
from training.recipes import Recipe


def optimizer_of(model: PromptableModel, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over what is trained, in groups named "encoder", "decoder" and "trunk", whose rates the stages set."""
    groups: dict[tuple[str, bool], list[Tensor]] = {}
    for name, parameter in model.sam.named_parameters():
        if not parameter.requires_grad:
            continue
        half = "encoder" if name.startswith("image_encoder.") else "decoder"
        if name.startswith("image_encoder.trunk."):
            half = "trunk"
        # Weight decay is for matrices only: not for biases, norms, positions and token embeddings.
        apart = ("pos_embed", "rel_pos", "token.weight", "tokens.weight", "embed.weight", "point_embeddings.")
        decays = parameter.ndim >= 2 and not any(part in name for part in apart)
        groups.setdefault((half, decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "name": half, "weight_decay": recipe.weight_decay if decays else 0.0}
            for (half, decays), parameters in groups.items()
        ],
        betas=(0.9, 0.98),
    )
