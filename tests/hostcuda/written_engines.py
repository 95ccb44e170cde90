"""Engines of the stand-in TensorRT in a toy bundle."""

from __future__ import annotations

from pathlib import Path

import toy_engines
from hostcuda.fake_tensorrt import write_plan

from samrt.bundle.manifest import Graph
from samrt.engines.plugin import RequiredPlugin
from samrt.engines.profiles import BuildLimits


def write_engines(bundle: Path, backend: str, limits: BuildLimits, plugin: RequiredPlugin | None = None) -> None:
    """Write a set of engines of the stand-in TensorRT for the bundle's one form; with a `plugin`, such that need it."""
    largest = {"batch": limits.max_batch, "prompts": limits.max_prompts, "points": limits.max_points}

    def write(path: Path, onnx: Path, graph: Graph) -> None:
        write_plan(path, onnx, graph, largest, plugin=plugin is not None)

    what = {"backend": backend, "version": "0", "compute_capabilities": ("8.7",), "limits": limits, "plugin": plugin}
    toy_engines.write_engines(bundle, write, **what)
