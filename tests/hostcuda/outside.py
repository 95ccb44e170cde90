"""Runs a file of checks in a process of its own whose CUDA driver is `libcuda.c`: device memory is host memory there.

That checks samrt's own logic (order of work, copies, ownership, graphs) against the real cuda.core. It is no result of
a GPU. A process of its own, because one process loads one driver.
"""

from __future__ import annotations

import ast
import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pytest

_FOLDER = Path(__file__).resolve().parent


def names(file: str) -> list[str]:
    """The checks in `file`."""
    tree = ast.parse((_FOLDER / file).read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def expect_passed(file: str, name: str) -> None:
    """Fail with what the check `name` of `file` said, if it failed; skip if it did, or there is no compiler."""
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    outcomes, output = _results(file)
    outcome = outcomes.get(name)
    if outcome is None:
        pytest.fail(f"{name} did not run:\n{output[-4000:]}")
    if outcome.failures:
        pytest.fail("\n".join(outcome.failures))
    if outcome.skips:
        pytest.skip("; ".join(outcome.skips))


@dataclass
class _Outcome:
    """What a check said in all its cases that failed, and in those that were skipped."""

    failures: list[str] = field(default_factory=list)
    skips: list[str] = field(default_factory=list)


@functools.cache
def _results(file: str) -> tuple[dict[str, _Outcome], str]:
    """The outcomes by the name of the check, and what pytest printed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        environment = {**os.environ, "LD_LIBRARY_PATH": str(_driver()), "XDG_CACHE_HOME": folder}
        arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", str(_FOLDER / file)]
        try:
            done = subprocess.run(
                [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
            )
        except subprocess.TimeoutExpired as error:
            # Returned, as an error would not be cached, and each check of the file would wait as long.
            return {}, f"{error}\n{(error.stdout or b'').decode(errors='replace')}"
        return _outcomes(report), done.stdout + done.stderr


def _outcomes(report: Path) -> dict[str, _Outcome]:
    found: dict[str, _Outcome] = {}
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        outcome = found.setdefault(str(case.get("name")).split("[")[0], _Outcome())
        for node in case:
            if node.tag in ("failure", "error"):
                outcome.failures.append(node.text or str(node.get("message")))
            elif node.tag == "skipped":
                outcome.skips.append(str(node.get("message")))
    return found


@functools.cache
def _driver() -> Path:
    """The folder with the compiled driver."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("there is no C compiler here to make the stand-in CUDA driver with (Linux only)")
    folder = Path(tempfile.mkdtemp(prefix="hostcuda"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = folder / "libcuda.so.1"
    flags = ["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run([compiler, *flags, "-o", str(library), str(_FOLDER / "libcuda.c")], check=True)
    return folder
