"""Smoke runs of `benchmarks/gpu`, each once for all tests."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from kernel_builds import host_build, sanitized_environment

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # No GPU is seen, also where there is one.
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable, **environment}
    return subprocess.run([*map(str, command)], env=hidden, capture_output=True, text=True, timeout=1200, check=False)


@functools.cache
def on_host() -> dict[str, str]:
    """The environment of a process that takes the kernels' source on the host for the kernels."""
    return {**sanitized_environment(), "SAMRT_KERNELS_LIBRARY": str(host_build() / "libsamrt_kernels_host.so")}


def smoke(plan: str, *only: str, kernels: bool = True) -> dict[str, Any]:
    """The JSON of a plan's smoke run, or of some of its phases; with the kernels' source on the host, or without."""
    report, ended = _smoke(plan, only, kernels)
    assert ended.returncode == 0, ended.stdout + ended.stderr + json.dumps(report, indent=1)
    return report


@functools.cache
def _smoke(plan: str, only: tuple[str, ...], kernels: bool) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    with tempfile.TemporaryDirectory() as folder:
        # The limits are for a machine that does nothing else.
        options = ["--plan", plan, "--slow", "5", *(["--only", *only] if only else [])]
        # `OUT` is a folder, as where results are collected.
        ended = run(FOLDER / "run.sh", "--smoke", *options, OUT=folder, **(on_host() if kernels else {}))
        return json.loads((Path(folder) / f"smoke-{plan}.json").read_text()), ended
