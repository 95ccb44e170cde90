"""Whether the TensorRT flavours build for this GPU and run on it at all, tried with a tiny graph for every target."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tensorrt_attempt import capabilities
from work import Work

from samrt.engines.flavours import FLAVOURS, installed_flavours

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
        # The attempt that decides comes first and is recorded at once: the other attempts may use up the time.
        first = _as_built(flavour, targets)
        for target in ["default"] if work.smoke else sorted(targets, key=lambda target: target != first):
            work.record(flavour, "attempts", target, value=_attempt(flavour, target))
            _conclude(work, flavour)


def runs(work: Work, flavour: str) -> bool:
    """Whether an earlier phase found that engines run here which this flavour builds as `samrt build` asks it to."""
    return bool(work.of("tensorrt").get(flavour, {}).get("runs"))


def _conclude(work: Work, flavour: str) -> None:
    attempts = work.of("tensorrt")[flavour]["attempts"]
    good = [target for target, outcome in attempts.items() if outcome.get("correct")]
    first = _as_built(flavour, attempts)
    work.record(flavour, "runs", value=first in good)
    if first in good:
        work.record(flavour, "reason", value=f"correct when built for {', '.join(good)}")
        return
    why = attempts[first].get("error") or f"its result was wrong by {attempts[first].get('difference')}"
    told = (
        f"correct on this device when built for {', '.join(good)}, but not for {first}, as `samrt build` does"
        if good
        else "no engine ran correctly on this device, for any target that was tried"
    )
    work.record(flavour, "reason", value=f"{told}; {first}: {why}")


def _as_built(flavour: str, targets: Collection[str]) -> str:
    """What `samrt build` asks for: with TensorRT-RTX the GPU at hand, where that was tried."""
    return "CURRENT" if flavour == "tensorrt_rtx" and "CURRENT" in targets else "default"


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
