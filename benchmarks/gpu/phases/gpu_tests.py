"""The tests that need a GPU, `tests/gpu`, by pytest: a process for each file, outcome by outcome."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import kernel_library
from work import NotHereError, Work, WrongResultError

from samrt.kernels.library import KERNELS_VARIABLE

_ROOT = Path(__file__).resolve().parents[3]
_PLUGIN = "outcomes_plugin"
_TOLD = 600
_TICK_S = 0.5
_GOOD = (0, 5)  # 5: nothing was collected, as where a whole file is skipped


def run(work: Work) -> None:
    folder = _ROOT / "tests" / "gpu"
    if not folder.is_dir():
        raise NotHereError("the folder tests/gpu does not exist")
    if importlib.util.find_spec("pytest") is None:
        raise NotHereError("pytest is not installed")
    files = sorted(folder.glob("test_*.py"))
    # Quick tests that need no TensorRT come first.
    files.sort(key=lambda file: ("leaks" in file.name, "engines" in file.name))
    # Without a GPU, all are skipped: one process is enough.
    ended = (
        [_run_file(work, [str(file)]) for file in files] if not work.smoke else [_run_file(work, list(map(str, files)))]
    )
    found = work.of("gpu_tests")
    failed, wrong = found.get("failed", []), [text for text in ended if text]
    if failed or wrong:
        raise WrongResultError("; ".join([*wrong, *([f"{len(failed)} tests failed"] if failed else [])]))
    if not found.get("passed"):
        # With a GPU, this is a failure.
        kind = NotHereError if work.smoke else WrongResultError
        raise kind(f"none of {len(found.get('skipped', []))} tests could run: {found.get('skipped', [])[:1]}")


def _run_file(work: Work, files: list[str]) -> str:
    """Run them, recording on the way; what went wrong but for tests that failed."""
    name = Path(files[0]).stem
    if work.seconds_left < 1:
        return f"{name} was not started: no time was left"
    outcomes = work.folder / f"{name}.outcomes"
    environment = {**os.environ, "SAMRT_OUTCOMES": str(outcomes)}
    # Other installed plugins could change what runs; samrt's own is loaded by name.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(
        [*filter(None, [os.environ.get("PYTHONPATH")]), str(Path(__file__).resolve().parents[1])]
    )
    library = kernel_library.path_of(work)
    if library is not None:
        environment[KERNELS_VARIABLE] = library
    command = [sys.executable, "-m", "pytest", *files, "-p", "no:cacheprovider", "-p", _PLUGIN]
    log = work.folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    began, code = "", None
    before = work.of("gpu_tests")
    while code is None and work.seconds_left > 0:
        time.sleep(_TICK_S)
        code = process.poll()
        began = _record(work, before, outcomes)
    process.kill()
    process.wait()
    if code is None or code < 0:
        why = "did not end in time" if code is None else f"ended by {signal.Signals(-code).name}"
        return f"{name} {why}{f', in {began}' if began else ''}"
    return "" if code in (*_GOOD, 1) else f"pytest ended with {code}: {log.read_text(errors='replace')[-_TOLD:]}"


def _record(work: Work, before: dict[str, list[str]], file: Path) -> str:
    """Add the outcomes in `file` to those `before`; the test that began and has none."""
    found = {kind: list(before.get(kind, [])) for kind in ("passed", "skipped", "failed")}
    began = ""
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        kind, name, text = json.loads(line)
        name = name.removeprefix("tests/gpu/")
        if kind == "began":
            began = name
            continue
        began = ""
        found[kind].append(f"{name}: {text}" if text else name)
    work.record("counts", value={kind: len(cases) for kind, cases in found.items()})
    for kind, cases in found.items():
        work.record(kind, value=cases)
    return began
