"""What Nsight Compute counts in the attention of ViT-B, default tile shape first: what limits the main loop."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cuda_tools
import goals
import kernel_library
from work import NotHereError, Work
from workers.checks import ATTENTION

from samrt.kernels.library import Kernels

_PROGRAM = Path(__file__).resolve().parents[1] / "profiled.py"
_MODEL, _HEAD_DIM, _HEADS, _WINDOWS = "ViT-B", 64, 12, (0, 14)
_LEAST_S, _ONE_S = 8, 30
# By section, as the names of single counters change with the architecture; the counters are an attempt of their own.
_SECTIONS = (
    "SpeedOfLight", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis", "SchedulerStats", "WarpStateStats",
    "LaunchStats", "Occupancy",
)  # fmt: skip
_COUNTERS = (
    "smsp__inst_executed.sum",
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
    "dram__bytes.sum",
)
_ASKED = {
    "sections": [option for section in _SECTIONS for option in ("--section", section)],
    "counters": ["--metrics", ",".join(_COUNTERS)],
}


def run(work: Work) -> None:
    if work.smoke:
        raise NotHereError("ncu needs a GPU")
    kernels = kernel_library.use(work)
    tool = cuda_tools.find("ncu")
    if tool is None:
        raise NotHereError("ncu was not found; install the CUDA toolkit")
    for window, tile, name in _jobs(kernels, work.of("kernels_time").get(ATTENTION, {})):
        layer = f"windows of {window}" if window else "global"
        for kind, options in _ASKED.items():
            if work.seconds_left < _LEAST_S:
                work.record("absent", value=f"from tile {name}, {layer} on: no time was left")
                return
            arguments = [str(kernels.path), *map(str, (_HEAD_DIM, _HEADS, window, tile))]
            log = work.folder / f"ncu-{tile}-{window}-{kind}.csv"
            command = [
                str(tool), "--csv", "--page", "details", "--print-details", "all", "--clock-control", "none",
                "--launch-count", "1", "--log-file", str(log), *options, sys.executable, str(_PROGRAM), *arguments,
            ]  # fmt: skip
            call = lambda command=command, log=log: _counted(command, log, min(_ONE_S, work.seconds_left))  # noqa: E731
            work.attempt(layer, name, kind, call=call)


def _jobs(kernels: Kernels, timed: dict[str, Any]) -> Iterator[tuple[int, int, str]]:
    """Window, tile and its name: the default shape in both layers, then the fastest first, then untimed ones."""
    names = kernels.attention_tiles()
    tiles = [tile for tile in range(len(names)) if kernel_library.has_tile(kernels, _HEAD_DIM, tile)]
    ranked = {}
    for window in _WINDOWS:
        layer = f"{_MODEL}, {f'windows {window}' if window else 'global'}, {_HEADS} heads of {_HEAD_DIM}, batch 1"
        times = timed.get(layer, {}).get("times", {})
        ms = {tile: times.get(f"samrt, {names[tile]}", {}).get("ms", float("inf")) for tile in tiles}
        ranked[window] = [-1, *sorted(tiles, key=ms.__getitem__)]
    for place in range(len(tiles) + 1):
        for window in _WINDOWS:
            tile = ranked[window][place]
            yield window, tile, goals.DEFAULT_TILE if tile < 0 else names[tile]


def _counted(command: list[str], log: Path, seconds: float) -> dict[str, Any]:
    """Metrics with their units, by section and name, and the kernel's name."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    found = metrics(said)
    if ended.returncode or not found:
        raise RuntimeError(f"ncu ended with {ended.returncode}: {(said + ended.stdout + ended.stderr)[-600:]}")
    return found


def metrics(said: str) -> dict[str, Any]:
    """The metrics in ncu's CSV, after ncu's own messages; by section, because some metrics are in two."""
    lines = said.splitlines()
    first = next((index for index, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    found: dict[str, Any] = {}
    for row in csv.DictReader(lines[first:]):
        if row["Metric Name"]:
            found["kernel"] = row["Kernel Name"]
            value = f"{row['Metric Value']} {row['Metric Unit']}".strip()
            found.setdefault(row["Section Name"], {})[row["Metric Name"]] = value
    return found
