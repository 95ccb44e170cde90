"""`training/model.py` and `training/attention.py`: what is trained is what will be exported."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts import geometry
from seeded import normal, seeded_attention, seeded_state, tiny_vit_state
from training_fixtures import TINY, decoder_state, discs

from samrt.bundle.contract import Normalization
from samrt.errors import BundleError
from samrt.geometry import normalize_and_pad
from samrt_export.families.sam import build
from samrt_export.families.vit_blocks import PIXEL_MEAN, PIXEL_STD
from samrt_export.models.sam import DecoderGraph, EncoderGraph
from training.attention import train_fused
from training.model import PromptableModel, given_state, initial_state, whitening
from training.samples import make_batch
from training.step import encode_batch


def _some_patches() -> torch.Tensor:
    return normal(300, 3, TINY.patch, TINY.patch)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A tiny model whose every weight is random, so that each matters."""
    loaded = build(initial_state(TINY, decoder_state(), _some_patches()), 64)
    return seeded_state(loaded.sam, seed=3)


@pytest.mark.parametrize("window", [0, 3, 8])
def test_fused_attention_is_the_reference_and_so_is_its_gradient(window: int) -> None:
    reference = seeded_attention(head_dim=16, heads=2, grid=8, window=window).requires_grad_(True)
    fused = copy.deepcopy(reference)
    train_fused(torch.nn.Sequential(fused))
    assert type(fused) is not type(reference)
    tokens = normal(2, 8, 8, 32)

    results = [module(tokens) for module in (reference, fused)]
    for result in results:
        (result * normal(*result.shape, seed=1)).sum().backward()

    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
    for (name, expected), (_, found) in zip(reference.named_parameters(), fused.named_parameters(), strict=True):
        assert expected.grad is not None
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_a_model_whose_images_are_normalised_otherwise_is_refused() -> None:
    with pytest.raises(BundleError, match="a lite_medsam model cannot be trained here"):
        PromptableModel(tiny_vit_state(), 256)


def test_both_halves_compute_what_the_exported_graphs_do(state: dict[str, torch.Tensor]) -> None:
    model = PromptableModel(state, 64).requires_grad_(False)
    sam = build(dict(state), 64).sam
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    prepared = normalize_and_pad(pixels, geometry(64, normalization=Normalization("mean_std", PIXEL_MEAN, PIXEL_STD)))
    padded = np.full((1, 3, 64, 64), 99, np.uint8)  # what lies in the padding must not matter
    padded[0, :, :40] = pixels.transpose(2, 0, 1)
    valid = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    valid[:, :, :40] = True

    tokens = model.encode(torch.from_numpy(padded), valid)

    embedding = EncoderGraph(sam)(torch.from_numpy(prepared))
    torch.testing.assert_close(tokens, embedding.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)

    points, labels = 20 + 9 * normal(3, 2, 2, seed=2), torch.tensor([[1, -1], [2, 3], [1, 0]])
    mask = normal(3, 1, 32, 32)
    for given in (None, mask):
        logits, iou = model.decode(tokens.expand(3, -1, -1), points, labels, given)
        expected = DecoderGraph(copy.deepcopy(sam))(
            embedding, points, labels.int(), mask, torch.full((3,), float(given is not None))
        )
        torch.testing.assert_close(logits, expected[0], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(iou, expected[1], rtol=1e-4, atol=1e-4)


def test_the_first_layer_sees_patches_whitened() -> None:
    patches = normal(4000, 3, 4, 4) * torch.linspace(5, 0.5, 48).reshape(3, 4, 4) + 7

    weight, bias = whitening(patches, 32)

    seen = torch.nn.functional.conv2d(patches, weight, bias)[:, :, 0, 0]
    torch.testing.assert_close(seen.mean(0), torch.zeros(32), atol=1e-3, rtol=0)
    off_diagonal = seen.T.cov() - torch.diag(seen.var(0))
    assert off_diagonal.abs().max() < 1e-3
    assert 0.2 < seen.var(0).min() <= seen.var(0).max() < 1.01


def test_a_wider_layer_than_there_are_pixels_is_filled_with_zeros() -> None:
    weight, _ = whitening(normal(500, 3, 2, 2), 20)

    assert weight.shape == (20, 3, 2, 2)
    assert weight[12:].abs().max() == 0
    assert weight[11].abs().max() > 0


def test_a_run_starts_from_the_released_decoder() -> None:
    decoder = decoder_state()

    state = initial_state(TINY, decoder, _some_patches())

    neck = ("image_encoder.neck.1.", "image_encoder.neck.2.", "image_encoder.neck.3.")
    for name, tensor in state.items():
        taken = not name.startswith("image_encoder.") or name.startswith(neck)
        assert (name in decoder and torch.equal(tensor, decoder[name])) == taken, name


def test_every_parameter_gets_a_gradient_from_two_rounds(state: dict[str, torch.Tensor]) -> None:
    from dataclasses import replace

    from training.rounds import run_rounds

    model = PromptableModel(state, 64)
    batch = replace(make_batch(np.random.default_rng(1), discs(), TINY, TINY.stages[2]), rounds=2)

    figures = run_rounds(
        model, encode_batch(model, batch, torch.device("cpu")), 2, torch.Generator().manual_seed(0), TINY.stages[2]
    )
    figures["loss"].backward()

    # The hypernetworks of masks that were nobody's best learn nothing in this step, and a key's bias never does:
    # it moves all scores of a query alike.
    excused = ("output_hypernetworks_mlps", "token_to_image.k_proj.bias")
    idle = [name for name, p in model.sam.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert [name for name in idle if not any(part in name for part in excused)] == []


def test_a_decoder_that_lacks_a_part_is_refused() -> None:
    decoder = decoder_state()
    del decoder["mask_decoder.iou_token.weight"]

    with pytest.raises(BundleError, match=r"lacks mask_decoder\.iou_token\.weight"):
        initial_state(TINY, decoder, _some_patches())


def test_compiled_parts_compute_the_same(state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether torch can trace what is compiled; its compiler, which takes minutes, is left out."""
    from functools import partial

    compile_eagerly = partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", compile_eagerly)
    model = PromptableModel(state, 64).requires_grad_(False)
    tokens, targets = normal(2, 64, 256), torch.zeros(2, 32, 32)
    given = tokens, 20 + 9 * normal(2, 2, 2), torch.tensor([[1, -1], [2, 3]]), None, targets
    expected = model.attempt(*given)

    model.compile_parts()

    for found, value in zip(model.attempt(*given), expected, strict=True):
        torch.testing.assert_close(found, value)


def test_by_blocks_all_that_are_alike_share_one_compilation_of_both_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    from functools import partial

    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    forward: list[torch.fx.GraphModule] = []
    backward: list[torch.fx.GraphModule] = []
    backend = aot_autograd(
        fw_compiler=lambda graph, _: forward.append(graph) or make_boxed_func(graph.forward),
        bw_compiler=lambda graph, _: backward.append(graph) or make_boxed_func(graph.forward),
    )
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    monkeypatch.setattr(torch._functorch.config, "force_non_lazy_backward_lowering", False)
    recipe = replace(TINY, depth=6, global_blocks=(2, 5))
    model = PromptableModel(initial_state(recipe, decoder_state(), _some_patches()), 64)
    images, valid = torch.full((2, 3, 64, 64), 99, dtype=torch.uint8), torch.ones(2, 1, 64, 64, dtype=torch.bool)
    expected = model.encode(images, valid)

    model.compile_parts(by_blocks=True)
    found = model.encode(images, valid)

    # Those with windows and those without; their backward passes before any is asked for, which a limit can end.
    assert (len(forward), len(backward)) == (2, 2)
    torch.testing.assert_close(found, expected)
    gradients = [
        torch.autograd.grad(tokens.square().mean(), model.sam.image_encoder.pos_embed) for tokens in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


def test_a_run_starts_from_all_weights_of_a_model_of_its_own() -> None:
    state = initial_state(TINY, decoder_state(), _some_patches())
    trained = PromptableModel(state, 64).sam.state_dict()

    given = given_state(TINY, trained)

    assert {name: tensor.shape for name, tensor in given.items()} == {name: t.shape for name, t in state.items()}
    assert all(torch.equal(given[name], trained[name]) for name in given if "pos" not in name)
    with pytest.raises(BundleError, match="another network"):
        given_state(replace(TINY, depth=3), trained)
