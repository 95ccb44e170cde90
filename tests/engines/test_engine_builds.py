"""Real engines of TensorRT-RTX, built from real graphs in fp16: what goes in and out, and what memory they take.

Nothing here runs an engine: that takes a GPU, and is `tests/gpu`'s.
"""

from __future__ import annotations

import gc
import re
import shutil
from pathlib import Path

import onnx
import pytest
import torch
from seeded import RELEASED_DECODER, conv_vit_state, vit_state
from uncompared import load_state, write_uncompared

import samrt
from samrt.bundle.contract import Graph
from samrt.bundle.folder import open_bundle
from samrt.engines.builder.bundle import BuildRequest, build_bundle
from samrt.engines.builder.network import parse
from samrt.engines.flavours import Flavour
from samrt.engines.logger import collecting_logger
from samrt.engines.manifest import EngineManifest
from samrt.engines.profiles import BuildLimits
from samrt_export.families.sam import RELEASED
from samrt_export.forms import export_decoder, export_encoder, form_of
from samrt_export.lowering import resolve
from samrt_export.models.config import ConvVitConfig
from samrt_export.models.image_encoder_vit import ImageEncoderViT
from samrt_export.models.sam import Sam
from training.recipes import RECIPES

pytest_plugins = ("tensorrt_fixtures",)
pytestmark = pytest.mark.usefixtures("without_gpu")

# What the parser of TensorRT 10.0 takes at opset 20, of the operators that samrt's graphs have: JetPack 6.2 has 10.3.
OF_TENSORRT_10 = re.findall(
    r"\w+",
    "Add Cast Clip Concat Conv ConvTranspose Cos Div Einsum Erf Expand Gather Gelu Gemm Greater GreaterOrEqual "
    "LayerNormalization MatMul Mul Pad Relu Reshape Shape Sin Slice Softmax Split Squeeze Sub Transpose Unsqueeze "
    "Where",
)
HALF = BuildRequest("tensorrt_rtx", "fp16", BuildLimits(max_batch=1, max_prompts=4, max_points=16))
MIB = 1 << 20


def check_engines(bundle: Path, built: EngineManifest, scratch_mib: int) -> None:
    """Inputs, outputs, ranges and memory of a bundle's engines; the encoder's scratch memory at most `scratch_mib`."""
    manifest = open_bundle(bundle).manifest
    S, L, (feature,) = manifest.geometry.encoder_side, manifest.geometry.low_res_side, manifest.features
    embedding = feature.shape
    encoder, decoder = built.engines["image_encoder"], built.engines["mask_decoder"]
    assert encoder.ranges["image"].minimum == encoder.ranges["image"].maximum == (1, 3, S, S)
    assert decoder.ranges["image_embeddings"].maximum == (1, *embedding)
    assert decoder.ranges["point_coords"].minimum == (1, 0, 2)
    assert decoder.ranges["point_labels"].maximum == (4, 16)
    assert decoder.ranges["mask_input"].maximum == (4, 1, L, L)
    assert [tensor.dtype for tensor in decoder.graph.inputs] == ["float32", "float32", "int32", "float32", "float32"]
    assert {tensor.name: tensor.shape for tensor in decoder.graph.outputs} == {
        "low_res_masks": ("prompts", 4, L, L),
        "iou_predictions": ("prompts", 4),
    }
    for name, engine in built.engines.items():
        weights = sum(manifest.files[file].bytes for file in built.sources if file.startswith(name))
        # The plan holds the weights, in the precision of the graph.
        assert 0.5 * weights < engine.memory["plan_bytes"] < 1.5 * weights + 32 * MIB, name
        assert engine.memory["activation_bytes"] >= engine.memory["scratch_bytes"] > 0
    assert encoder.memory["scratch_bytes"] <= scratch_mib * MIB


def check_network(rtx: Flavour, path: Path, graph: Graph) -> None:
    """What TensorRT itself reads out of the file is what the format says, and an older one could read it too."""
    model = onnx.load(str(path), load_external_data=False)
    assert {node.op_type for node in model.graph.node} <= set(OF_TENSORRT_10)
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [20]
    logger = collecting_logger(rtx)
    parsed = parse(rtx, logger, path, rtx.module.Builder(logger))
    network = parsed.network
    types = {"float32": rtx.module.float32, "int32": rtx.module.int32}
    for count, get, declared in (
        (network.num_inputs, network.get_input, graph.inputs),
        (network.num_outputs, network.get_output, graph.outputs),
    ):
        found = {tensor.name: tensor for tensor in map(get, range(count))}
        assert found.keys() == {tensor.name for tensor in declared}
        for tensor in declared:
            assert found[tensor.name].dtype == types[tensor.dtype]
            shape = tuple(-1 if isinstance(length, str) else length for length in tensor.shape)
            assert tuple(found[tensor.name].shape) == shape
    assert not logger.errors
    assert not [line for line in logger.warnings if "layernorm" in line.lower()]


def test_vit_b(rtx: Flavour, tmp_path: Path) -> None:
    loaded = load_state("vit_b", vit_state(RELEASED["vit_b"], decoder=RELEASED_DECODER))
    bundle = write_uncompared(tmp_path, loaded)
    built = build_bundle(bundle, HALF)
    # Not fused, one layer's scores alone would take 384 MiB.
    check_engines(bundle, built, scratch_mib=160)
    for graph in open_bundle(bundle).manifest.forms[0].graphs.values():
        check_network(rtx, bundle / graph.file, graph)


def test_an_encoder_with_a_trunk(rtx: Flavour, tmp_path: Path) -> None:
    recipe = RECIPES["trunk"]
    assert recipe.trunk
    state = conv_vit_state(ConvVitConfig(recipe.trunk, recipe.encoder(512)), decoder=RELEASED_DECODER)
    bundle = write_uncompared(tmp_path, load_state("conv_vit", state))
    # Not fused, its one global layer's scores alone would take 96 MiB.
    check_engines(bundle, build_bundle(bundle, HALF), scratch_mib=48)
    for graph in open_bundle(bundle).manifest.forms[0].graphs.values():
        check_network(rtx, bundle / graph.file, graph)


def test_lite_medsam(rtx: Flavour, lite_medsam_bundle: Path) -> None:
    built = build_bundle(lite_medsam_bundle, HALF)
    assert (built.precision, built.lowering) == ("fp16", "dense")
    check_engines(lite_medsam_bundle, built, scratch_mib=100)
    for form in open_bundle(lite_medsam_bundle).manifest.forms:
        for graph in form.graphs.values():
            check_network(rtx, lite_medsam_bundle / graph.file, graph)


def test_the_default_model(rtx: Flavour, tmp_path: Path) -> None:
    """Its one form is dense: the scores of 4,096 tokens in three heads alone take 96 MiB."""
    bundle = shutil.copytree(samrt.default_bundle(), tmp_path / "bundle")
    check_engines(bundle, build_bundle(bundle, HALF), scratch_mib=120)
    for graph in open_bundle(bundle).manifest.forms[0].graphs.values():
        check_network(rtx, bundle / graph.file, graph)


def test_vit_h_is_parsed(rtx: Flavour, tmp_path: Path) -> None:
    """Weights above 1 GB in their own file, head dimension 80."""
    with torch.device("meta"):
        sam = Sam(ImageEncoderViT(RELEASED["vit_h"]), RELEASED_DECODER)
    # What the numbers are does not matter to a parser.
    loaded = load_state("vit_h", {name: torch.zeros(tensor.shape) for name, tensor in sam.state_dict().items()})
    lowering = resolve("auto", loaded.sam.image_encoder, "fp16")
    form = form_of(loaded, "fp16", lowering)
    export_encoder(loaded, form, tmp_path)
    export_decoder(loaded, form, tmp_path)
    del loaded
    gc.collect()
    for graph in form.graphs.values():
        check_network(rtx, tmp_path / graph.file, graph)
