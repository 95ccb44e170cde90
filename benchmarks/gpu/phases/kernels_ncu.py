"""What Nsight Compute counts in the attention kernels of ViT-B's layers, tile by tile: what bounds the main loop."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import cuda_tools
import kernel_library
from work import NotHereError, Work

_PROGRAM = Path(__file__).resolve().parents[1] / "profiled.py"
_HEAD_DIM, _HEADS, _WINDOWS = 64, 12, (0, 14)
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
        raise NotHereError("ncu counts on a GPU")
    kernels = kernel_library.use(work)
    tool = cuda_tools.find("ncu")
    if tool is None:
        raise NotHereError("there is no ncu here; it comes with CUDA's toolkit")
    jobs = [
        (f"windows of {window}" if window else "global", window, tile)
        for tile in range(len(kernels.attention_tiles()))
        for window in _WINDOWS
        if kernel_library.has_tile(kernels, _HEAD_DIM, tile)
    ]
    for layer, window, tile in jobs:
        for kind, options in _ASKED.items():
            if work.seconds_left < _LEAST_S:
                work.record(
                    "absent", value=f"from tile {kernels.attention_tiles()[tile]}, {layer} on: no time was left"
                )
                return
            arguments = [str(kernels.path), *map(str, (_HEAD_DIM, _HEADS, window, tile))]
            log = work.folder / f"ncu-{tile}-{window}-{kind}.csv"
            command = [
                str(tool), "--csv", "--page", "details", "--clock-control", "none", "--launch-count", "1",
                "--log-file", str(log), *options, sys.executable, str(_PROGRAM), *arguments,
            ]  # fmt: skip
            call = lambda command=command, log=log: _counted(command, log, min(_ONE_S, work.seconds_left))  # noqa: E731
            work.attempt(layer, kernels.attention_tiles()[tile], kind, call=call)


def _counted(command: list[str], log: Path, seconds: float) -> dict[str, str]:
    """Metrics with their units, by name."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    found = metrics(said)
    if ended.returncode or not found:
        raise RuntimeError(f"ncu ended with {ended.returncode}: {(said + ended.stdout + ended.stderr)[-600:]}")
    return found


def metrics(said: str) -> dict[str, Any]:
    """The metrics in ncu's CSV, which its own messages come before."""
    lines = said.splitlines()
    first = next((index for index, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    rows = csv.DictReader(lines[first:])
    return {
        row["Metric Name"]: f"{row['Metric Value']} {row['Metric Unit']}".strip() for row in rows if row["Metric Name"]
    }
