"""`training/optimizer.py`: which parameters decay, and at whose rate they are trained."""

from __future__ import annotations

from dataclasses import replace

import torch
from seeded import SMALL_CONV_VIT, released_trunk
from training_fixtures import TINY, decoder_state

from training.model import PromptableModel, initial_state
from training.optimizer import optimizer_of


def test_what_stands_for_a_position_or_a_token_does_not_decay() -> None:
    model = PromptableModel(initial_state(TINY, decoder_state(), torch.randn(100, 3, 8, 8)), 32)
    decays = {
        id(parameter): group["weight_decay"]
        for group in optimizer_of(model, TINY).param_groups
        for parameter in group["params"]
    }
    found = {name: decays[id(parameter)] for name, parameter in model.sam.named_parameters()}

    assert {name for name, parameter in model.sam.named_parameters() if parameter.ndim >= 2 and not found[name]} == {
        "image_encoder.pos_embed",
        *(f"image_encoder.blocks.{block}.attn.rel_pos_{axis}" for block in (0, 1) for axis in "hw"),
        *(f"prompt_encoder.point_embeddings.{label}.weight" for label in range(4)),
        "prompt_encoder.not_a_point_embed.weight",
        "prompt_encoder.no_mask_embed.weight",
        "mask_decoder.iou_token.weight",
        "mask_decoder.mask_tokens.weight",
    }
    assert {found[name] for name, parameter in model.sam.named_parameters() if parameter.ndim < 2} == {0.0}


def test_a_trunk_has_a_rate_of_its_own_where_it_is_trained() -> None:
    recipe = replace(TINY, trunk=SMALL_CONV_VIT.trunk)
    model = PromptableModel(initial_state(recipe, decoder_state(), torch.zeros(0), released_trunk()), 64)
    names = {id(parameter): name for name, parameter in model.sam.named_parameters()}
    for trunk_lr in (0.0, 1e-4):
        model.begin(replace(TINY.stages[2], trunk_lr=trunk_lr))
        groups = optimizer_of(model, recipe).param_groups
        trained = {names[id(p)].split(".")[3] for group in groups if group["name"] == "trunk" for p in group["params"]}
        assert trained == ({"2", "3", "4", "5"} if trunk_lr else set())
