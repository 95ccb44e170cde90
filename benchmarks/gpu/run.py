"""Runs the phases one after the other and writes one JSON file; `run.sh` prepares the ground for it.

Each phase is a process of its own with a time limit, and what it measured is in the file as soon as it ended: a phase
that crashes or hangs loses nothing but itself, and its error stands where its results would.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from driver import no_gpu_reason
from phases import PHASES, Phase, allowed

from samrt.errors import OutputError
from samrt.files import check_target, replacing_file

_HERE = Path(__file__).resolve().parent
_TAIL = 2000  # characters of a phase's own output that go into the JSON when it failed
_LEAST = 5  # seconds left below which no further phase is begun
FORMAT_VERSION = 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--budget", type=float, default=570, help="seconds for everything (default 570)")
    parser.add_argument("--only", nargs="+", choices=[phase.name for phase in PHASES], help="some phases only")
    parser.add_argument("--smoke", action="store_true", help="test this script on the CPU: measures no device")
    arguments = parser.parse_args()
    reason = "" if arguments.smoke else no_gpu_reason()
    if reason:
        print(f"There is no NVIDIA GPU that can be used here ({reason}); nothing was measured.")
        return 1
    try:
        check_target(arguments.out)
    except OutputError as error:
        print(f"{error}; nothing was measured.", file=sys.stderr)
        return 1
    chosen = [phase for phase in PHASES if not arguments.only or phase.name in arguments.only]
    with tempfile.TemporaryDirectory(prefix="samrt-gpu-") as folder:
        report = _run_all(chosen, Path(folder), arguments)
    failed = [name for name, phase in report["phases"].items() if phase["status"] not in ("ok", "skipped")]
    print(f"wrote {arguments.out}" + (f"; not completed: {', '.join(failed)}" if failed else ""))
    return 2 if failed else 0


def _run_all(chosen: list[Phase], folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    report: dict[str, Any] = {
        "benchmark": "gpu",
        "format_version": FORMAT_VERSION,
        "smoke": arguments.smoke,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "budget_s": arguments.budget,
        "seconds": 0.0,
        "phases": {},
    }
    for index, phase in enumerate(chosen):
        limit = allowed(phase, chosen[index + 1 :], arguments.budget - (time.monotonic() - began))
        print(f"{phase.name} ...", file=sys.stderr, flush=True)
        report["phases"][phase.name] = done = _run(phase, folder, limit, arguments.smoke)
        print(f"{phase.name}: {done['status']} {done.get('reason', '')}", file=sys.stderr, flush=True)
        report["seconds"] = round(time.monotonic() - began, 1)
        with replacing_file(arguments.out) as fresh:
            fresh.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _run(phase: Phase, folder: Path, limit: float, smoke: bool) -> dict[str, Any]:
    if limit < _LEAST:
        return {"status": "not run", "reason": f"{max(limit, 0):.0f} s of the budget were left for it"}
    command = [sys.executable, str(_HERE / "phase.py"), phase.name, str(folder), f"{limit:.1f}"]
    began = time.monotonic()
    log = folder / f"{phase.name}.log"
    with log.open("wb") as output:
        # A session of its own, so that a time-out ends its children with it: compilers, pytest.
        process = subprocess.Popen(
            [*command, *(["--smoke"] if smoke else [])], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Also what a phase that ended well left running.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    done: dict[str, Any] = {"status": "ok", "seconds": round(time.monotonic() - began, 1), "limit_s": round(limit, 1)}
    if code is None:
        done.update(status="timed out", reason=f"past its limit of {limit:.0f} s")
    elif code < 0:
        done.update(status="crashed", reason=f"ended by {signal.Signals(-code).name}")
    outcome = _read(folder / f"{phase.name}.outcome.json")
    if code is not None and code >= 0:
        # A phase says itself how it ended; one that could not say so ended in its interpreter.
        done.update(outcome or {"status": "crashed", "reason": f"ended with exit code {code}"})
    if done["status"] not in ("ok", "skipped"):
        done["output_tail"] = log.read_text("utf-8", errors="replace")[-_TAIL:]
    done["result"] = _read(folder / f"{phase.name}.json")
    return done


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
