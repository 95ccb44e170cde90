"""Engines of the stand-in TensorRT in a toy bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hostcuda.fake_tensorrt import write_plan

from samrt.bundle.manifest import FileEntry, Manifest
from samrt.engines.manifest import EngineFile, EngineManifest, platform_name
from samrt.engines.plugin import RequiredPlugin
from samrt.engines.profiles import Limits, ranges
from samrt.engines.selection import source_hashes
from samrt.files import sha256_of


def write_engines(bundle: Path, backend: str, limits: Limits, plugin: RequiredPlugin | None = None) -> None:
    """Write a set of engines of the stand-in TensorRT for the bundle's one form; with a `plugin`, such that need it."""
    manifest = Manifest.from_json((bundle / "manifest.json").read_text())
    (form,) = manifest.forms
    built = EngineManifest(
        backend=backend,
        version="0",
        platform=platform_name(),
        compute_capabilities=("8.7",),
        device=None,
        precision=form.precision,
        lowering=form.lowering,
        sources=source_hashes(manifest, form),
        limits=limits,
        engines={},
        verification={"figures": {}},
        plugin=plugin,
    )
    folder = bundle / "engines" / built.name
    folder.mkdir(parents=True)
    largest = {"batch": limits.max_batch, "prompts": limits.max_prompts, "points": limits.max_points}
    engines = {}
    for name, graph in form.graphs.items():
        path = write_plan(folder / f"{name}.engine", bundle / graph.file, graph, largest, plugin=plugin is not None)
        content = FileEntry(sha256_of(path), path.stat().st_size)
        engines[name] = EngineFile(replace(graph, file=path.name), content, ranges(graph, limits), {}, 1.0)
    (folder / "engine.json").write_text(replace(built, engines=engines).to_json())
