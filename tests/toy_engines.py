"""Sets of engines in a toy bundle that no TensorRT has built, and a machine that they fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from toy_bundle import rewrite_manifest

from samrt.bundle.contract import Graph
from samrt.bundle.folder import open_bundle
from samrt.bundle.manifest import FileEntry
from samrt.device.gpus import Gpu
from samrt.engines.manifest import EngineFile, EngineManifest, platform_name
from samrt.engines.profiles import BuildLimits, ranges
from samrt.engines.selection import Machine, source_hashes
from samrt.files import sha256_of

ORIN = Gpu(0, "Orin", "8.7", 32 << 30)
LAPTOP = Gpu(0, "RTX 4060", "8.9", 8 << 30)
MACHINE = Machine(platform_name(), LAPTOP, {"tensorrt": "10.9.0", "tensorrt_rtx": "1.7.1"}, {})


def write_text(path: Path, onnx: Path, graph: Graph) -> None:
    path.write_text(f"not really an engine: {onnx.stem}")


def write_engines(
    folder: Path, write: Callable[[Path, Path, Graph], object] = write_text, **changes: Any
) -> EngineManifest:
    """Add to the bundle in `folder` a set whose engine files `write` makes of their path, the graph's file and it."""
    bundle = open_bundle(folder)
    form = bundle.manifest.forms[0]
    built = EngineManifest(
        backend="tensorrt_rtx",
        version="1.7.1",
        platform=platform_name(),
        compute_capabilities=("8.6", "8.9"),
        device=None,
        precision=form.precision,
        lowering=form.lowering,
        sources=source_hashes(bundle.manifest, form),
        limits=BuildLimits(),
        engines={},
        verification={"figures": {}},
    )
    built = replace(built, **changes)
    target = folder / "engines" / built.name
    target.mkdir(parents=True)
    engines = {}
    for name, graph in form.graphs.items():
        path = target / f"{name}.engine"
        write(path, folder / graph.file, graph)
        content = FileEntry(sha256_of(path), path.stat().st_size)
        engines[name] = EngineFile(
            replace(graph, file=path.name), content, ranges(graph, built.limits), {"scratch_bytes": 0}, 1.5
        )
    built = replace(built, engines=engines)
    (target / "engine.json").write_text(built.to_json())
    return built


def with_forms(bundle: Path, *names: str) -> Path:
    """The bundle with forms of these names ("fp16-plugin") in place of its own, all of the same files."""
    form = open_bundle(bundle).manifest.forms[0]
    pairs = [name.split("-") for name in names]
    rewrite_manifest(bundle, forms=tuple(replace(form, precision=p, lowering=kind) for p, kind in pairs))
    return bundle
