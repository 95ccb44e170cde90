"""A bundle's graphs become engines in it, compared where a GPU can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorrt_fixtures import build_here
from toy_builds import FULL, everything_in, named, the_set
from toy_bundle import rewrite_manifest

from samrt.backends.session import Session, open_onnxruntime
from samrt.bundle.folder import open_bundle
from samrt.device import gpus
from samrt.device.gpus import Gpu
from samrt.engines.builder import bundle as building
from samrt.engines.builder.bundle import build_bundle
from samrt.engines.flavours import Flavour
from samrt.engines.manifest import platform_name
from samrt.engines.profiles import BuildLimits
from samrt.engines.selection import Choice
from samrt.engines.sets import EngineSet, find_engine_sets
from samrt.errors import BackendError, OutputError
from samrt.progress import Lines

pytest_plugins = ("tensorrt_fixtures", "toy_fixtures")
CARD = Gpu(1, "RTX 4060", "8.9", 8 << 30)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, rtx: Flavour) -> list[Choice]:
    """A GPU is found, and its engines are played by ONNX Runtime: what is tested is the comparison, not engines."""
    opened: list[Choice] = []
    build_here(monkeypatch)
    for module in (building, gpus):
        monkeypatch.setattr(module, "find_gpus", lambda: [CARD])

    def open_engines(choice: Choice, engines: EngineSet, options: Any) -> Session:
        opened.append(choice)
        assert engines.verified("image_encoder")[0].exists()
        assert options.device == CARD.index
        session = open_onnxruntime(open_bundle(engines.folder.parents[2]), choice)
        limits, run = engines.manifest.limits, session.decoder.run

        def limited(inputs: Any, on_device: Any = ()) -> Any:
            prompts, points = inputs["point_labels"].shape
            assert prompts <= limits.max_prompts
            assert points <= limits.max_points
            return run(inputs, on_device)

        session.decoder.run = limited  # type: ignore[method-assign]
        encode = session.encoder.run

        def full(inputs: Any, on_device: Any = ()) -> Any:
            assert len(inputs["image"]) == limits.max_batch
            return encode(inputs, on_device)

        session.encoder.run = full  # type: ignore[method-assign]
        return session

    monkeypatch.setattr(building, "open_engines", open_engines)
    return opened


@pytest.mark.usefixtures("without_gpu")
def test_what_is_built_without_a_gpu(own_bundle: Path, rtx: Flavour) -> None:
    lines: list[str] = []
    manifest = build_bundle(own_bundle, FULL, Lines(lines.append))
    assert the_set(own_bundle) == manifest
    assert (manifest.backend, manifest.version, manifest.platform) == ("tensorrt_rtx", rtx.version, platform_name())
    assert (manifest.precision, manifest.lowering, manifest.limits) == ("fp32", "dense", FULL.limits)
    # No device and no figures: nothing was run.
    assert (manifest.device, manifest.verification) == (None, None)
    assert {"8.6", "8.9"} <= set(manifest.compute_capabilities)
    bundle = open_bundle(own_bundle)
    assert manifest.sources == {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
    decoder = manifest.engines["mask_decoder"]
    assert decoder.ranges["point_coords"].minimum == (1, 0, 2)
    assert decoder.ranges["point_coords"].maximum == (3, 4, 2)
    assert manifest.engines["image_encoder"].ranges["image"].maximum == (2, 3, 64, 64)
    assert {tensor.name for tensor in decoder.graph.outputs} == {"low_res_masks", "iou_predictions"}
    for name, engine in manifest.engines.items():
        assert engine.memory["plan_bytes"] == engine.content.bytes > 1000
        assert engine.memory["scratch_bytes"] >= 0
        assert engine.build_seconds > 0
        assert find_engine_sets(own_bundle)[0].verified(name)[0].stat().st_size == engine.content.bytes
    assert lines[0] == f"building fp32-dense engines with TensorRT-RTX {rtx.version}"
    assert any("building encoder" in line for line in lines)
    assert any("building decoder" in line for line in lines)
    assert lines[-2] == "not compared with the bundle: no GPU here can run these engines"
    assert lines[-1].startswith("wrote ")


@pytest.mark.usefixtures("without_gpu")
def test_the_same_set_is_replaced_and_others_stay(own_bundle: Path) -> None:
    build_bundle(own_bundle, named("8.6"))
    build_bundle(own_bundle, named("8.9"))
    smaller = replace(named("8.9"), limits=BuildLimits(max_points=2))
    build_bundle(own_bundle, smaller)
    found = [each.manifest for each in find_engine_sets(own_bundle) if isinstance(each, EngineSet)]
    assert [(each.compute_capabilities, each.limits) for each in found] == [
        (("8.6",), FULL.limits),
        (("8.9",), smaller.limits),
    ]


@pytest.mark.usefixtures("without_gpu")
def test_a_set_with_other_files_in_it_stays(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_bundle / "engines" / build_bundle(own_bundle, named("8.9")).name
    (folder / "notes.txt").write_text("mine")
    monkeypatch.setattr(building, "build_in_child", lambda *_: pytest.fail("it was built first"))
    with pytest.raises(OutputError, match="holds other things than engines"):
        build_bundle(own_bundle, named("8.9"))
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("without_gpu")
def test_axes_of_any_name(own_bundle: Path) -> None:
    """The format fixes where a graph's dynamic axes are, not what a manifest calls them."""
    form = open_bundle(own_bundle).manifest.forms[0]
    encoder = form.graphs["image_encoder"]
    renamed = replace(encoder, inputs=(replace(encoder.inputs[0], shape=("n", 3, 64, 64)),))
    rewrite_manifest(own_bundle, forms=(replace(form, graphs={**form.graphs, "image_encoder": renamed}),))
    assert build_bundle(own_bundle, named("8.9")).engines["image_encoder"].graph.inputs[0].shape[0] == "batch"


def test_on_a_gpu_the_engines_are_compared_first(own_bundle: Path, stand_in: list[Choice]) -> None:
    lines: list[str] = []
    manifest = build_bundle(own_bundle, named("8.6", "8.9"), Lines(lines.append))
    assert manifest.device == "RTX 4060"
    assert [str(choice.form.name) for choice in stand_in] == ["fp32-dense"]
    assert manifest.verification is not None
    assert manifest.verification["reference"] == "fp32-dense"
    figures = manifest.verification["figures"]
    assert figures["embedding_relative_l2"] == 0
    # Prompts of up to four points; a batch of three goes as the engine takes it.
    assert set(figures["prompts"]) == {"point", "box", "points and box", "mask", "points and mask", "batch"}
    assert the_set(own_bundle) == manifest
    assert any("comparing with the bundle's graphs in ONNX Runtime, on RTX 4060" in line for line in lines)


def test_the_reference_is_the_fp32_form(
    own_bundle: Path, stand_in: list[Choice], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = open_bundle(own_bundle).manifest.forms[0]
    rewrite_manifest(own_bundle, forms=(replace(full, precision="fp16"), full))
    references: list[str] = []
    honest = building.open_onnxruntime

    def counting(bundle: Any, choice: Choice) -> Session:
        references.append(choice.form.name)
        return honest(bundle, choice)

    monkeypatch.setattr(building, "open_onnxruntime", counting)
    built = build_bundle(own_bundle, replace(named("8.9"), precision="fp16"))
    assert (references, [choice.form.name for choice in stand_in]) == (["fp32-dense"], ["fp16-dense"])
    assert built.verification is not None
    assert built.verification["reference"] == "fp32-dense"
    assert built.verification["tolerance"]["mask_iou"] == 0.995


def test_what_the_engines_do_not_take_is_not_asked_of_them(own_bundle: Path, stand_in: list[Choice]) -> None:
    small = replace(named("8.9"), limits=BuildLimits(max_prompts=1, max_points=2))
    verification = build_bundle(own_bundle, small).verification
    assert verification is not None
    assert set(verification["figures"]["prompts"]) == {"point", "box", "mask", "batch"}


def test_engines_for_other_gpus_are_not_compared(own_bundle: Path, stand_in: list[Choice]) -> None:
    manifest = build_bundle(own_bundle, named("8.6"))
    assert (manifest.device, manifest.verification, stand_in) == (None, None, [])


@pytest.mark.parametrize(
    ("graph", "output", "said"),
    [
        ("image_encoder", "image_embeddings", r"embedding: relative L2 \S+ > 1e-05"),
        ("mask_decoder", "low_res_masks", r"box: logits: relative L2 \S+ > 0.0001"),
        ("mask_decoder", "iou_predictions", r"box: predicted IoU off by \S+ > 0.0001"),
    ],
)
def test_past_tolerance_nothing_is_installed(
    own_bundle: Path, stand_in: list[Choice], monkeypatch: pytest.MonkeyPatch, graph: str, output: str, said: str
) -> None:
    build_bundle(own_bundle, named("8.9"))
    before = everything_in(own_bundle)
    honest = building.open_engines

    def dishonest(*given: Any) -> Session:
        session = honest(*given)
        engine = session.encoder if graph == "image_encoder" else session.decoder
        run = engine.run

        def wrong(inputs: Any, on_device: Any = ()) -> Any:
            outputs = run(inputs)
            return {**outputs, output: (outputs[output] * np.float32(1.01)).astype(np.float32)}

        engine.run = wrong
        return session

    monkeypatch.setattr(building, "open_engines", dishonest)
    with pytest.raises(BackendError, match=said) as caught:
        build_bundle(own_bundle, named("8.9"))
    assert "They were not installed" in str(caught.value)
    assert everything_in(own_bundle) == before


@pytest.mark.usefixtures("without_gpu")
def test_warnings_are_told(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = building.build_in_child
    monkeypatch.setattr(building, "build_in_child", lambda *given: replace(real(*given), warnings=("it is slow",)))
    lines: list[str] = []
    build_bundle(own_bundle, named("8.9"), Lines(lines.append))
    assert sum("warns: it is slow" in line for line in lines) == 2
