"""Whether the TensorRT flavours build for this GPU and run on it at all, tried with a tiny graph in every way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tensorrt_attempt import capabilities
from work import Work

from samrt.tensorrt.flavours import FLAVOURS, installed_flavours

_ATTEMPT = Path(__file__).resolve().parents[1] / "tensorrt_attempt.py"
_SECONDS = 40


def run(work: Work) -> None:
    installed = installed_flavours()
    for flavour in FLAVOURS:
        if flavour not in installed:
            work.record(flavour, value={"runs": False, "reason": f"{flavour} is not installed"})
            continue
        work.record(flavour, value={"version": installed[flavour], "runs": False, "reason": "not tried to the end"})
        try:
            targets = capabilities(flavour)
        except Exception as error:
            work.record(flavour, "reason", value=f"it cannot be imported: {error}"[:800])
            continue
        for target in targets[:1] if work.smoke else targets:
            work.record(flavour, "attempts", target, value=_attempt(flavour, target))
        _conclude(work, flavour)


def runs(work: Work, flavour: str) -> bool:
    """Whether an earlier phase found that engines of this flavour run here."""
    return bool(work.of("tensorrt").get(flavour, {}).get("runs"))


def _conclude(work: Work, flavour: str) -> None:
    attempts = work.of("tensorrt")[flavour]["attempts"]
    good = [target for target, outcome in attempts.items() if outcome.get("correct")]
    if good:
        work.record(flavour, "runs", value=True)
        work.record(flavour, "reason", value=f"correct when built for {', '.join(good)}")
        return
    first = next(iter(attempts.values()))
    why = first.get("error") or f"its result was wrong by {first.get('difference')}"
    work.record(flavour, "reason", value=f"no way of building ran correctly on this device; the default: {why}")


def _attempt(flavour: str, target: str) -> dict[str, Any]:
    command = [sys.executable, str(_ATTEMPT), flavour, target]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"stage": "unknown", "error": f"did not end within {_SECONDS} s"}
    stages = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    outcome = stages[-1] if stages else {"stage": "nothing"}
    if ended.returncode < 0:
        return {**outcome, "error": f"crashed with {signal.Signals(-ended.returncode).name} after this stage"}
    if ended.returncode:
        return {**outcome, "error": ended.stderr[-800:]}
    return outcome
