"""What tests ask to be built of a toy bundle, how, and what they find in it afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from contracts import sam_graph
from toy_bundle import FILES

from samrt.engines.builder.bundle import BuildRequest
from samrt.engines.builder.engine import BuildOptions, BuiltEngine, build_engine
from samrt.engines.flavours import Flavour
from samrt.engines.manifest import EngineManifest
from samrt.engines.profiles import BuildLimits, Range, ranges
from samrt.engines.sets import EngineSet, find_engine_sets
from samrt.progress import SILENT

FULL = BuildRequest("tensorrt_rtx", "fp32", BuildLimits(max_batch=2, max_prompts=3, max_points=4))


def named(*capabilities: str) -> BuildRequest:
    return replace(FULL, options=BuildOptions(compute_capabilities=capabilities))


def the_set(folder: Path) -> EngineManifest:
    (found,) = find_engine_sets(folder)
    assert isinstance(found, EngineSet), found
    assert found.folder.name == found.manifest.name
    return found.manifest


def everything_in(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path.relative_to(folder)), path.stat().st_mtime_ns) for path in folder.rglob("*.*"))


def toy_ranges(name: str, **limits: int) -> dict[str, Range]:
    return ranges(sam_graph(name, f"{name}.onnx", 64, (8, 16, 16)), BuildLimits(**limits))


def build_toy(flavour: Flavour, bundle: Path, name: str = "mask_decoder", **options: Any) -> BuiltEngine:
    return build_engine(flavour, bundle / FILES[name], toy_ranges(name), BuildOptions(**options), SILENT)
