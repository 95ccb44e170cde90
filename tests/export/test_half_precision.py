"""What keeps half precision from overflowing and from losing small masks: in torch, and as TensorRT reads it."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import onnx
import pytest
import torch
from contracts import sam_graph
from seeded import SMALL_TINY_VIT, SMALL_VIT, seeded_state, tiny_vit_state, vit_decoder
from torch import Tensor, nn

from samrt.bundle.contract import IMAGE_ENCODER, MASK_DECODER, Graph
from samrt.engines.builder.engine import BuildOptions, BuiltEngine, build_engine
from samrt.engines.builder.network import parse
from samrt.engines.flavours import import_flavour
from samrt.engines.logger import collecting_logger
from samrt.engines.profiles import BuildLimits, ranges
from samrt.progress import SILENT
from samrt_export.lowering import lower
from samrt_export.models.common import LayerNorm2d, softmax
from samrt_export.models.config import VitConfig
from samrt_export.models.image_encoder_vit import Attention, ImageEncoderViT
from samrt_export.models.sam import DecoderGraph, EncoderGraph, Sam
from samrt_export.models.tiny_vit import TinyViT
from samrt_export.onnx_export import export_graph

LARGEST = 65504.0  # of half precision
# A result of float32 arithmetic, rounded once to 11 bits, with as much again for its rounded weights.
ROUNDING = 2 * 2.0**-11
BUILD = BuildOptions(compute_capabilities=("8.6",))


def relative_l2(value: Tensor, truth: Tensor) -> float:
    assert value.shape == truth.shape
    return float((value.double() - truth.double()).norm() / truth.double().norm())


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Activations near the end of the range


@pytest.mark.parametrize("kind", [nn.LayerNorm, LayerNorm2d])
@pytest.mark.parametrize("size", [3e4, LARGEST])
def test_layer_norm_of_large_activations(kind: type[nn.Module], size: float) -> None:
    """Their squares, 1e9 and more, are far beyond half precision."""
    norm = kind(64, eps=1e-6).requires_grad_(False)
    norm.load_state_dict(seeded_state(norm, seed=0))
    x = (size * normal(2, 64, 3, 64).clamp(-1, 1)).half()
    assert x.abs().max() == torch.tensor(size).half()
    out = deepcopy(norm).half()(x)
    assert out.isfinite().all()
    assert relative_l2(out, norm.double()(x.double())) <= ROUNDING


@pytest.mark.parametrize("lowering", ["dense", "augmented"])
def test_attention_with_scores_near_the_end_of_the_range(lowering: str) -> None:
    """Each score is 6e4 or its opposite; unscaled they would be 4.8e5, which is infinite."""
    head_dim, grid = 64, 8
    layer = Attention(2 * head_dim, head_dim, grid, window_size=0).eval().requires_grad_(False)
    layer.qkv.weight.copy_(torch.eye(2 * head_dim).repeat(3, 1))
    layer.qkv.bias.zero_()
    direction = normal(head_dim)
    direction *= (6e4 / layer.scale) ** 0.5 / direction.norm()
    sign = normal(1, grid, grid, 1, seed=1).sign()
    x = (sign * direction.repeat(2)).half()
    holder = nn.Sequential(deepcopy(layer))
    lower(holder, lowering)
    out = holder.half()(x)
    assert out.isfinite().all()
    expected = layer.double()(x.double())
    assert relative_l2(out, expected) <= ROUNDING


@pytest.mark.parametrize("score", [0.0, 6e4, -6e4])
def test_softmax_of_large_scores_over_a_global_layers_keys(score: float) -> None:
    """Unless their largest is taken off first, the exponentials are infinite, or zero."""
    weights = softmax(torch.full((1, 4096), score).half())
    assert weights.dtype == torch.float16
    assert weights.double().sum() == pytest.approx(1, rel=ROUNDING)


def test_softmax_is_no_less_exact_in_float64() -> None:
    scores = normal(3, 50).double()
    assert torch.equal(softmax(scores), scores.softmax(dim=-1))


# LiteMedSAM


def tiny_vit_graph() -> EncoderGraph:
    sam = Sam(TinyViT(SMALL_TINY_VIT), vit_decoder())
    sam.image_encoder.load_state_dict(seeded_state(sam.image_encoder, seed=0))
    sam.eval().requires_grad_(False)
    lower(sam.image_encoder, "dense")
    return EncoderGraph(sam, torch.float16)


def test_tiny_vit_sees_colours_that_half_precision_merges() -> None:
    graph = tiny_vit_graph()
    image = torch.full((1, 3, 256, 256), 0.5)
    brighter = image + 1e-4
    assert torch.equal(image.half(), brighter.half())
    patches, others = (graph.image_encoder.patch_embed(picture) for picture in (image, brighter))
    assert not torch.equal(patches, others)
    types = {name: parameter.dtype for name, parameter in graph.named_parameters()}
    exact = {name for name, dtype in types.items() if dtype == torch.float32}
    assert exact == {name for name in types if name.startswith("image_encoder.patch_embed.")}
    assert graph(image).dtype == torch.float32


def test_tiny_vits_float32_parts_are_not_rounded_on_the_way() -> None:
    state = tiny_vit_state()
    name = "image_encoder.patch_embed.seq.2.c.weight"
    sam = Sam(TinyViT(SMALL_TINY_VIT), vit_decoder())
    sam.image_encoder.load_state_dict({n[14:]: t for n, t in state.items() if n.startswith("image_encoder.")})
    assert torch.equal(EncoderGraph(sam, torch.float16).get_parameter(name), state[name])


# As TensorRT reads and builds it


def export_half(module: nn.Module, graph: Graph, folder: Path) -> Path:
    lengths = {"batch": 2, "prompts": 2, "points": 3}
    samples = tuple(
        torch.zeros([lengths.get(length, length) for length in tensor.shape], dtype=getattr(torch, tensor.dtype))
        for tensor in graph.inputs
    )
    export_graph(module, graph, samples, folder)
    return folder / graph.file


def vit_sam(config: VitConfig, lowering: str) -> Sam:
    sam = Sam(ImageEncoderViT(config), vit_decoder(config))
    sam.load_state_dict(seeded_state(sam, seed=0))
    sam.eval().requires_grad_(False)
    lower(sam.image_encoder, lowering)
    return sam


def graph_of(config: VitConfig, name: str) -> Graph:
    return sam_graph(name, f"{name}.onnx", config.image_size, (config.out_chans, config.grid, config.grid))


def modules_and_graphs(kind: str) -> tuple[nn.Module, Graph]:
    if kind == "tiny_vit":
        return tiny_vit_graph(), sam_graph(IMAGE_ENCODER, "encoder.onnx", 256, (SMALL_TINY_VIT.out_chans, 64, 64))
    if kind == "decoder":
        return DecoderGraph(vit_sam(SMALL_VIT, "dense"), torch.float16), graph_of(SMALL_VIT, MASK_DECODER)
    return EncoderGraph(vit_sam(SMALL_VIT, kind), torch.float16), graph_of(SMALL_VIT, IMAGE_ENCODER)


@pytest.fixture(scope="module", params=["dense", "augmented", "tiny_vit", "decoder"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Graph, Path]:
    """A module, its graph, and the file that it was exported to."""
    module, graph = modules_and_graphs(request.param)
    return module, graph, export_half(module, graph, tmp_path_factory.mktemp(request.param))


def test_every_layer_norm_stays_one_layer(exported: tuple[nn.Module, Graph, Path]) -> None:
    """Taken to pieces, its squares and their mean would be half precision: of that TensorRT warns."""
    pytest.importorskip("tensorrt_rtx")
    flavour = import_flavour("tensorrt_rtx")
    trt = flavour.module
    module, _, path = exported
    norms = sum(isinstance(each, nn.LayerNorm | LayerNorm2d) for each in module.modules())
    assert norms > 0
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("LayerNormalization") == norms
    assert not {"Pow", "ReduceMean", "ReduceSum", "BatchNormalization"} & set(operators)

    logger = collecting_logger(flavour)
    builder = trt.Builder(logger)
    parsed = parse(flavour, logger, path, builder)
    layers = [parsed.network.get_layer(index) for index in range(parsed.network.num_layers)]
    normalizations = [layer for layer in layers if layer.type == trt.LayerType.NORMALIZATION]
    assert len(normalizations) == norms
    assert not any(layer.type == trt.LayerType.REDUCE for layer in layers)
    for layer in normalizations:
        # TensorRT 11 and TensorRT-RTX 1.7 no longer let one ask or choose.
        assert getattr(layer, "compute_precision", trt.float32) == trt.float32
    softmaxes = [layer for layer in layers if layer.type == trt.LayerType.SOFTMAX]
    assert softmaxes
    assert {layer.get_input(0).dtype for layer in softmaxes} == {trt.float32}


def test_builder_does_not_warn(exported: tuple[nn.Module, Graph, Path]) -> None:
    _, graph, path = exported
    assert build(graph, path).warnings == ()


def build(graph: Graph, path: Path) -> BuiltEngine:
    pytest.importorskip("tensorrt_rtx")
    return build_engine(import_flavour("tensorrt_rtx"), path, ranges(graph, BuildLimits()), BUILD, SILENT)


@pytest.mark.parametrize(("lowering", "matrices"), [("augmented", (0, 0.5)), ("dense", (1, 2))])
def test_attention_of_global_layers_fuses(lowering: str, matrices: tuple[float, float], tmp_path: Path) -> None:
    """Seen in the scratch memory, in score matrices: fused and augmented there is none; dense has one for the bias."""
    config = VitConfig(
        image_size=1024,
        patch_size=16,
        embed_dim=128,
        depth=2,
        head_dim=64,
        mlp_dim=256,
        out_chans=32,
        window_size=14,
        global_blocks=(1,),
    )
    module, graph = EncoderGraph(vit_sam(config, lowering), torch.float16), graph_of(config, IMAGE_ENCODER)
    scratch = build(graph, export_half(module, graph, tmp_path)).memory["scratch_bytes"]
    least, most = matrices
    assert least <= scratch / (config.num_heads * config.grid**4 * 2) < most
