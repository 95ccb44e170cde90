"""The tests that need a GPU, `tests/gpu`, by pytest."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import kernel_library
from work import NotHereError, Work, WrongResultError

from samrt.kernels import KERNELS_VARIABLE

_ROOT = Path(__file__).resolve().parents[3]
_MESSAGE = 600
_MARGIN_S = 3


def run(work: Work) -> None:
    if not (_ROOT / "tests" / "gpu").is_dir():
        raise NotHereError("there is no folder tests/gpu")
    if importlib.util.find_spec("pytest") is None:
        raise NotHereError("pytest is not installed")
    report = work.folder / "gpu_tests.xml"
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    limit = work.seconds_left - _MARGIN_S
    environment = dict(os.environ)
    library = kernel_library.path_of(work)
    if library is not None:
        environment[KERNELS_VARIABLE] = library
    ended = subprocess.run(
        command, cwd=_ROOT, env=environment, timeout=limit, capture_output=True, text=True, check=False
    )
    if not report.exists():
        raise WrongResultError(f"pytest ended with {ended.returncode}: {(ended.stdout + ended.stderr)[-_MESSAGE:]}")
    outcomes: dict[str, list[str]] = {"passed": [], "skipped": [], "failed": []}
    for case in ET.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('tests.gpu.')}::{case.get('name')}"
        told = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        if told is None:
            outcomes["passed"].append(name)
        else:
            kind = "skipped" if told.tag == "skipped" else "failed"
            text = told.get("message", "") if kind == "skipped" else (told.text or "")[-_MESSAGE:]
            outcomes[kind].append(f"{name}: {text}")
    work.record("counts", value={kind: len(cases) for kind, cases in outcomes.items()})
    for kind, cases in outcomes.items():
        work.record(kind, value=cases)
    if ended.returncode not in (0, 5):  # 5: nothing was collected, as where a whole file is skipped
        raise WrongResultError(f"{len(outcomes['failed'])} tests failed (pytest ended with {ended.returncode})")
    if not outcomes["passed"]:
        raise NotHereError(f"none of {len(outcomes['skipped'])} tests could run: {outcomes['skipped'][:1]}")
