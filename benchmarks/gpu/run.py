"""Runs a plan's phases one after the other and writes one JSON file; `run.sh` sets up the environment for it.

Each phase is a process of its own with a time limit. What it measured is in the file within a second, and stays there
whatever ends the phase, or this process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from driver import device_name, no_gpu_reason
from isolated import SLOWNESS
from phases import PLANS, Phase, allowed

from samrt.errors import OutputError
from samrt.files import check_target, replacing_file

# By which a report is known, and may be replaced by one.
_MARK = b'"benchmark": "gpu"'

_HERE = Path(__file__).resolve().parent
_TAIL = 2000  # characters of a phase's own output that go into the JSON when it failed
_LEAST = 5  # seconds left below which no further phase is begun
_TICK_S = 0.5
FORMAT_VERSION = 2


def main() -> int:
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write, or a folder for it")
    parser.add_argument("--plan", choices=PLANS, default="all", help="the plan to run (default all)")
    parser.add_argument("--budget", type=float, help="seconds for everything (default: the plan's)")
    parser.add_argument("--spent", type=float, default=0, help="seconds of the budget that run.sh has used already")
    parser.add_argument(
        "--slow", type=float, default=1, help="factor on the budget and all limits, for a slower machine (default 1)"
    )
    parser.add_argument("--only", nargs="+", help="run only these phases of the plan")
    parser.add_argument("--smoke", action="store_true", help="test this script on the CPU: measures no device")
    arguments = parser.parse_args()
    plan = PLANS[arguments.plan]
    names = [phase.name for phase in plan.phases]
    if unknown := set(arguments.only or ()) - set(names):
        parser.error(f"the plan {arguments.plan} has no {', '.join(sorted(unknown))}; its phases: {', '.join(names)}")
    reason = "" if arguments.smoke else no_gpu_reason()
    if reason:
        print(f"No usable NVIDIA GPU was found ({reason}); nothing was measured.")
        return 1
    device = "smoke" if arguments.smoke else re.sub(r"[^a-z0-9]+", "-", device_name().lower()).strip("-")
    out = arguments.out
    if out.is_dir():
        out /= f"{device.removeprefix('nvidia-')}-{arguments.plan}.json"
    try:
        check_target(out, _MARK)
    except OutputError as error:
        print(f"{error.facts}; nothing was measured.", file=sys.stderr)
        return 1
    report: dict[str, Any] = {
        "benchmark": "gpu",
        "format_version": FORMAT_VERSION,
        "plan": arguments.plan,
        "smoke": arguments.smoke,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "budget_s": arguments.budget or plan.budget_s * arguments.slow,
        "complete": False,
        "seconds": 0.0,
        "phases": {},
    }
    chosen = [
        Phase(phase.name, phase.limit_s * arguments.slow, phase.reserve_s * arguments.slow)
        for phase in plan.phases
        if not arguments.only or phase.name in arguments.only
    ]
    os.environ[SLOWNESS] = str(arguments.slow)
    with tempfile.TemporaryDirectory(prefix="samrt-gpu-") as folder:
        _run_all(chosen, Path(folder), report, out, began - arguments.spent)
    failed = [name for name, phase in report["phases"].items() if phase["status"] not in ("ok", "skipped")]
    print(f"wrote {out}" + (f"; not completed: {', '.join(failed)}" if failed else ""))
    return 2 if failed else 0


def _run_all(chosen: list[Phase], folder: Path, report: dict[str, Any], out: Path, began: float) -> None:
    def write(name: str, phase: dict[str, Any]) -> None:
        report["phases"][name] = phase
        report["seconds"] = round(time.monotonic() - began, 1)
        with replacing_file(out, _MARK) as fresh:
            fresh.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    for index, phase in enumerate(chosen):
        limit = allowed(phase, chosen[index + 1 :], report["budget_s"] - (time.monotonic() - began))
        print(f"{phase.name} ...", file=sys.stderr, flush=True)
        done = _run(phase, folder, limit, report["smoke"], lambda found, name=phase.name: write(name, found))
        print(f"{phase.name}: {done['status']} {done.get('reason', '')}", file=sys.stderr, flush=True)
        report["complete"] = phase is chosen[-1]
        write(phase.name, done)


def _run(
    phase: Phase, folder: Path, limit: float, smoke: bool, tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """How the phase ended and what it found; `tell` is given what it found so far."""
    if limit < _LEAST:
        return {"status": "not run", "reason": f"only {max(limit, 0):.0f} s of the budget were left for it"}
    command = [sys.executable, str(_HERE / "phase.py"), phase.name, str(folder), f"{limit:.1f}"]
    began = time.monotonic()
    log, result = folder / f"{phase.name}.log", folder / f"{phase.name}.json"
    tell({"status": "running"})
    with log.open("wb") as output:
        # Its own process group, so that a time-out also ends its children (compilers, pytest).
        process = subprocess.Popen(
            [*command, *(["--smoke"] if smoke else [])], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        code, told = None, 0
        try:
            while code is None and (left := limit - (time.monotonic() - began)) > 0:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(min(_TICK_S, left))
                if code is None and result.exists() and result.stat().st_mtime_ns != told:
                    told = result.stat().st_mtime_ns
                    tell({"status": "running", "result": _read(result)})
        finally:
            # Also ends what a successful phase left running.
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
        # A phase writes its own outcome. If it did not, its interpreter ended early.
        done.update(outcome or {"status": "crashed", "reason": f"ended with exit code {code}"})
    if done["status"] not in ("ok", "skipped"):
        done["output_tail"] = log.read_text("utf-8", errors="replace")[-_TAIL:]
    done["result"] = _read(result)
    return done


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
