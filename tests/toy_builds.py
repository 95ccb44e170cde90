"""What tests ask to be built of a toy bundle, and what they find in it afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from samrt.engines.builder.bundle import BuildRequest
from samrt.engines.builder.engine import BuildOptions
from samrt.engines.manifest import EngineManifest
from samrt.engines.profiles import Limits
from samrt.engines.sets import find_engine_sets

FULL = BuildRequest("tensorrt_rtx", "fp32", Limits(max_batch=2, max_prompts=3, max_points=4))


def named(*capabilities: str) -> BuildRequest:
    return replace(FULL, options=BuildOptions(compute_capabilities=capabilities))


def the_set(folder: Path) -> EngineManifest:
    (found,) = find_engine_sets(folder)
    assert found.manifest is not None, found.problem
    assert found.folder.name == found.manifest.name
    return found.manifest


def everything_in(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path.relative_to(folder)), path.stat().st_mtime_ns) for path in folder.rglob("*.*"))
