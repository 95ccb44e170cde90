"""Sets of engines in a toy bundle that no TensorRT has built, and a machine that they fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from samrt.bundle.folder import open_bundle
from samrt.bundle.manifest import FileEntry
from samrt.device.gpus import Gpu
from samrt.engines.manifest import EngineFile, EngineManifest, platform_name
from samrt.engines.profiles import Limits, ranges
from samrt.engines.selection import Machine, source_hashes
from samrt.files import sha256_of

ORIN = Gpu(0, "Orin", "8.7", 32 << 30)
LAPTOP = Gpu(0, "RTX 4060", "8.9", 8 << 30)
MACHINE = Machine(platform_name(), LAPTOP, {"tensorrt": "10.9.0", "tensorrt_rtx": "1.7.1"}, {})


def write_engines(folder: Path, **changes: Any) -> EngineManifest:
    """Add to the bundle in `folder` a set whose engine files hold text."""
    bundle = open_bundle(folder)
    form = bundle.manifest.forms[0]
    limits = Limits()
    built = EngineManifest(
        backend="tensorrt_rtx",
        version="1.7.1",
        platform=platform_name(),
        compute_capabilities=("8.6", "8.9"),
        device=None,
        precision=form.precision,
        lowering=form.lowering,
        sources=source_hashes(bundle.manifest, form),
        limits=limits,
        engines={},
        verification={"figures": {}},
    )
    built = replace(built, **changes)
    target = folder / "engines" / built.name
    target.mkdir(parents=True)
    engines = {}
    for name, graph in form.graphs.items():
        path = target / f"{name}.engine"
        path.write_text(f"not really an engine: {name}")
        content = FileEntry(sha256_of(path), path.stat().st_size)
        engines[name] = EngineFile(
            replace(graph, file=path.name), content, ranges(graph, limits), {"scratch_bytes": 0}, 1.5
        )
    built = replace(built, engines=engines)
    (target / "engine.json").write_text(built.to_json())
    return built
