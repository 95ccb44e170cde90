"""compute-sanitizer on the kernels at small sizes: clean passes. Before that, each tool must find a planted fault."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cuda_tools
import kernel_library
import planted_faults
from kernel_checks import MODULES
from work import NotHereError, Work, WrongResultError

_PROGRAM = Path(__file__).resolve().parents[1] / "sanitized.py"
_NAME = "compute-sanitizer"
_FOUND_SOMETHING = 77
_SUMMARY = re.compile(r"SUMMARY: (\d+) (?:errors?|hazards?)")
_FIRST_PORT, _TOLD = 49152, 1000
_ENDED, _PLANTED = "ran to the end", "planted"
_NOT_ENDED = {"verdict": "failed", "said": "it did not finish"}


def run(work: Work) -> None:
    if work.smoke:
        raise NotHereError("the sanitizer needs a GPU")
    kernels = kernel_library.use(work)
    tool = cuda_tools.find(_NAME)
    if tool is None:
        raise NotHereError(f"{_NAME} was not found; install the CUDA toolkit, or the wheel nvidia-cuda-sanitizer-api")
    work.record("program", value=str(tool))
    version = subprocess.run([tool, "--version"], capture_output=True, text=True, timeout=20, check=False)
    work.record("version", value=version.stdout.strip()[-200:])
    commands = {}
    # The planted faults first: without them, clean results do not count.
    for part in (_PLANTED, *MODULES):
        for name in planted_faults.FAULTS:
            options = ["--tool", name, "--error-exitcode", str(_FOUND_SOMETHING), "--port", str(_port(len(commands)))]
            options += ["--launch-timeout", "0"]  # all begin at once, and may not answer within its 10 s
            what = [_PLANTED, name] if part == _PLANTED else [str(kernels.path), part]
            commands[name, part] = [str(tool), *options, sys.executable, str(_PROGRAM), *what]
            work.record("tools", name, part, value=_NOT_ENDED)
    # All in parallel, because most of their time is not spent on the GPU.
    with ThreadPoolExecutor(len(commands)) as pool:
        jobs = {pool.submit(_watch, command, max(1.0, work.seconds_left)): key for key, command in commands.items()}
        for job in as_completed(jobs):
            name, part = jobs[job]
            judged = judge_planted(name, *job.result()) if part == _PLANTED else judge_kernels(*job.result())
            work.record("tools", name, part, value=judged)
    _conclude(work)


def _port(number: int) -> int:
    """Each run has ports of its own to talk to its program."""
    return _FIRST_PORT + 20 * number


def judge_kernels(code: int | None, said: str) -> dict[str, Any]:
    """What a run over kernels says: "clean", "found" (faults), or "failed" where neither is certain.

    `code` is the exit code, None where the run was ended; `said` is all that was printed.
    """
    counts = [int(count) for count in _SUMMARY.findall(said)]
    if code == 0 and counts and not any(counts) and _ENDED in said:
        return {"verdict": "clean"}
    verdict = "found" if code == _FOUND_SOMETHING and any(counts) else "failed"
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
    verdicts = {
        f"{name}, {part}": outcome["verdict"]
        for name, parts in found.items()
        for part, outcome in parts.items()
        if part != _PLANTED
    }
    blind = [name for name, parts in found.items() if parts[_PLANTED]["verdict"] != "found"]
    if len(blind) == len(found) and "found" not in verdicts.values():
        raise NotHereError(f"{_NAME} does not work on this device: no tool found its planted fault")
    wrong = [f"{run}: {verdict}" for run, verdict in verdicts.items() if verdict != "clean"]
    wrong += [f"{name}: missed its planted fault" for name in blind]
    if wrong:
        raise WrongResultError("; ".join(wrong))
