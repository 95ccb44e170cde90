"""compute-sanitizer on the kernels at small sizes: clean passes. Before that, each tool must find a planted fault."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kernel_library
import planted_faults
from work import NotHereError, Work, WrongResultError

_PROGRAM = Path(__file__).resolve().parents[1] / "sanitized.py"
_NAME = "compute-sanitizer"
# Beside what is on PATH: CUDA's installers, and the wheel nvidia-cuda-sanitizer-api.
_PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
_WHEEL_PLACES = ("nvidia/cu13/compute-sanitizer", "nvidia/cu12/compute-sanitizer", "nvidia/cuda_sanitizer_api/bin")
_FOUND_SOMETHING = 77
_SUMMARY = re.compile(r"SUMMARY: (\d+) (?:errors?|hazards?)")
_LEFT_OUT = re.compile(r"^left out (.*)$", re.MULTILINE)
_FIRST_PORT, _MARGIN_S, _TOLD = 49152, 3, 1000
_ENDED = "ran to the end"


def run(work: Work) -> None:
    if work.smoke:
        raise NotHereError("the sanitizer watches kernels on a GPU")
    kernels = kernel_library.use(work)
    tool = find()
    if tool is None:
        raise NotHereError(f"there is no {_NAME} here; it comes with CUDA's toolkit, or as nvidia-cuda-sanitizer-api")
    work.record("program", value=str(tool))
    version = subprocess.run([tool, "--version"], capture_output=True, text=True, timeout=20, check=False)
    work.record("version", value=version.stdout.strip()[-200:])
    commands = {}
    for name in planted_faults.FAULTS:
        for kind, which in (("planted", name), ("kernels", str(kernels.path))):
            options = ["--tool", name, "--error-exitcode", str(_FOUND_SOMETHING), "--port", str(_port(len(commands)))]
            commands[name, kind] = [str(tool), *options, sys.executable, str(_PROGRAM), kind, which]
    # All at once, as most of their time is not the GPU's.
    with ThreadPoolExecutor() as pool:
        seconds = max(1.0, work.seconds_left - _MARGIN_S)
        jobs = {key: pool.submit(_watch, command, seconds) for key, command in commands.items()}
        for (name, kind), job in jobs.items():
            judged = judge_kernels(*job.result()) if kind == "kernels" else judge_planted(name, *job.result())
            work.record("tools", name, kind, value=judged)
    _conclude(work)


def _port(number: int) -> int:
    """Each run has ports of its own to talk to its program."""
    return _FIRST_PORT + 20 * number


def find() -> Path | None:
    """compute-sanitizer, if it is here. A wheel's is made executable."""
    on_path = shutil.which(_NAME) or shutil.which(_NAME, path=os.pathsep.join(_PLACES))
    if on_path:
        return Path(on_path)
    for folder in (Path(entry) / place for entry in sys.path for place in _WHEEL_PLACES):
        if (folder / _NAME).is_file():
            for file in folder.iterdir():
                file.chmod(file.stat().st_mode | 0o111)
            return folder / _NAME
    return None


def judge_kernels(code: int | None, said: str) -> dict[str, Any]:
    """What a run over the kernels says: "clean", "found" (faults), or "failed" where neither is certain.

    "clean in part" where checks were left out: nobody watched their kernels.

    `code` is the exit code, None where the run was ended; `said` is all that was printed.
    """
    counts = [int(count) for count in _SUMMARY.findall(said)]
    if code == _FOUND_SOMETHING and any(counts):
        verdict = "found"
    elif code == 0 and counts and not any(counts) and _ENDED in said:
        left_out = _LEFT_OUT.findall(said)
        return {"verdict": "clean in part", "left_out": left_out} if left_out else {"verdict": "clean"}
    else:
        verdict = "failed"
    return {"verdict": verdict, "exit_code": code, "said": said[:_TOLD] + said[_TOLD:][-_TOLD:]}


def judge_planted(name: str, code: int | None, said: str) -> dict[str, Any]:
    """What a run over the planted fault says: "found", or "missed"."""
    found = code == _FOUND_SOMETHING and planted_faults.FAULTS[name].report in said
    return {"verdict": "found"} if found else {"verdict": "missed", "exit_code": code, "said": said[-_TOLD:]}


def _watch(command: list[str], seconds: float) -> tuple[int | None, str]:
    """Exit code and output; no code where it was ended."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None, f"did not end within {seconds:.0f} s"
    return ended.returncode, ended.stdout + ended.stderr


def _conclude(work: Work) -> None:
    """Pass where each tool found its planted fault, and nothing in any kernel.

    What a tool found in the kernels counts even where it did not report its planted fault in the words we know.
    """
    found = work.of("kernels_sanitizer")["tools"]
    blind = [name for name, runs in found.items() if runs["planted"]["verdict"] != "found"]
    if len(blind) == len(found) and not any(runs["kernels"]["verdict"] == "found" for runs in found.values()):
        raise NotHereError(f"{_NAME} does not work on this device: no tool found the fault that was planted for it")
    wrong = [
        ", left out ".join([f"{name}: {kernels['verdict']}", *kernels.get("left_out", ())])
        for name, kernels in ((name, runs["kernels"]) for name, runs in found.items())
        if kernels["verdict"] != "clean"
    ]
    wrong += [f"{name}: missed the fault that was planted for it" for name in blind]
    if wrong:
        raise WrongResultError("; ".join(wrong))
