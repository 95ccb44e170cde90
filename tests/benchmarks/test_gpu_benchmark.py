"""`benchmarks/gpu` without a GPU: that it says so, that all of it runs, and that no phase can spoil another."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import isolated
import pytest
from gpu_smoke import FOLDER, run, smoke
from phases import PLANS, Phase, allowed, engines, tensorrt
from work import NotHereError, Work

_OWN = "tensorrt bundles engines encoder decoder image_to_mask leaks onnxruntime_cuda"


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    ended = run(FOLDER / "run.sh", OUT=str(tmp_path))

    assert ended.returncode == 1
    assert ended.stdout.startswith("No usable NVIDIA GPU was found")
    assert ended.stdout.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    ended = run(FOLDER / "run.sh", tmp_path / "absent" / "gpu.json", "--smoke")

    assert ended.returncode == 1
    assert "does not exist" in ended.stderr
    assert (ended.stdout, ended.stderr.count("\n")) == ("", 1)


@pytest.fixture(scope="module")
def own() -> dict[str, Any]:
    """What is in neither of the plans for the kernels, which other tests run."""
    return smoke("all", *_OWN.split(), "torch_eager", "torch_compile", kernels=False)


def test_the_smoke_run_passes_through_every_phase_and_claims_no_device(own: dict[str, Any]) -> None:
    statuses = {name: phase["status"] for name, phase in own["phases"].items()}

    assert own["smoke"] is True
    assert set(statuses.values()) == {"ok", "skipped"}
    for phase in own["phases"].values():
        assert ("reason" in phase) == (phase["status"] == "skipped")
    for name in ("bundles", "image_to_mask", "leaks", "torch_eager"):
        assert statuses[name] == "ok", name
    assert "gpu_ms" not in json.dumps(own)


def test_the_smoke_run_builds_engines_where_tensorrt_rtx_is(own: dict[str, Any]) -> None:
    pytest.importorskip("tensorrt_rtx")
    attempt = own["phases"]["tensorrt"]["result"]["tensorrt_rtx"]

    assert attempt["attempts"]["default"]["stage"] == "built"
    assert attempt["runs"] is False
    assert attempt["attempts"]["default"]["error"] in attempt["reason"]
    built = own["phases"]["engines"]["result"]["tensorrt_rtx small_augmented"]["build"]
    assert [name for name in built["files"] if name.endswith("encoder.engine")]


def test_the_forms_of_attention_in_torch_agree(own: dict[str, Any]) -> None:
    result = own["phases"]["torch_eager"]["result"]

    assert set(result["encoder"]) == {"materialised", "sdpa_bias", "sdpa_augmented"}
    for form in (*result["encoder"].values(), result["decoder"]):
        assert form["relative_l2_to_float32"] < 1e-5
        assert form["as called"]["wall_ms"]["min"] > 0


_PHASES = {
    "good": "def run(work):\n    work.record('a', 'b', value=1)\n",
    "crash": (
        "import os, signal\ndef run(work):\n    work.record('before', value=2)\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
    ),
    "hang": (
        "import subprocess, time\ndef run(work):\n    child = subprocess.Popen(['sleep', '300'])\n"
        "    work.record('child', value=child.pid)\n    time.sleep(300)\n"
    ),
    "wrong": "from work import WrongResultError\ndef run(work):\n    raise WrongResultError('off by one')\n",
    "raising": "def run(work):\n    work.attempt('tried', call=lambda: 1 / 0)\n    raise RuntimeError('no more')\n",
    "trying": "def run(work):\n    for n in (0, 1):\n        work.attempt(str(n), call=lambda: 1 / n)\n",
    "in_vain": "def run(work):\n    work.attempt('x', call=lambda: 1 / 0)\n",
    "leaving": "import os\ndef run(work):\n    os._exit(3)\n",
    "absent": "from work import NotHereError\ndef run(work):\n    raise NotHereError('nothing to do')\n",
    "unsteady": (
        "from isolated import Isolated\ndef run(work):\n"
        "    worker = Isolated(work, 'unsteady', {'n': 7}, silence_s=1)\n"
        "    work.take(worker)\n    work.record('restarts', value=worker.restarts)\n"
    ),
    "last": "def run(work):\n    work.record('of_crash', value=work.of('crash'))\n",
}
# Each result of it ends its process in another way.
_WORKER = """
import os, signal, time
def serve(work, report, n):
    report.attempt("good", call=lambda: n)
    report.attempt("wrong", call=lambda: 1 / 0)
    report.attempt("crash", call=lambda: os.kill(os.getpid(), signal.SIGSEGV))
    report.attempt("hang", call=lambda: time.sleep(300))
    if not report.is_done("poison"):
        report._usable = lambda: False
    report.attempt("poison", call=lambda: 1 / 0)
    report.attempt("last", call=lambda: sorted(map("".join, report.values)))
"""


@pytest.fixture
def own_phases(tmp_path: Path) -> Path:
    """A copy of the benchmark with other phases in its table."""
    copy = tmp_path / "gpu"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("wheels", "__pycache__", "*.json"))
    for name, source in _PHASES.items():
        (copy / "phases" / f"{name}.py").write_text(source)
    (copy / "workers" / "unsteady.py").write_text(_WORKER)
    _plan(copy, [Phase(name, 5) for name in _PHASES])
    return copy


def _plan(copy: Path, phases: list[Phase]) -> None:
    table = copy / "phases" / "__init__.py"
    head = table.read_text().split("PLANS = {")[0]
    table.write_text(f"{head}PLANS = {{'all': Plan(60, {tuple(phases)!r})}}\n")


def test_a_phase_that_crashes_or_hangs_loses_nothing_but_itself(own_phases: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    ended = run(sys.executable, own_phases / "run.py", "--smoke", "--out", out)
    phases = json.loads(out.read_text())["phases"]

    assert ended.returncode == 2
    assert {name: phase["status"] for name, phase in phases.items()} == {
        "good": "ok",
        "crash": "crashed",
        "hang": "timed out",
        "wrong": "failed",
        "raising": "failed",
        "trying": "ok",
        "in_vain": "failed",
        "leaving": "crashed",
        "absent": "skipped",
        "unsteady": "ok",
        "last": "ok",
    }
    assert phases["good"]["result"] == {"a": {"b": 1}}
    assert (phases["crash"]["result"], phases["crash"]["reason"]) == ({"before": 2}, "ended by SIGSEGV")
    assert phases["last"]["result"] == {"of_crash": {"before": 2}}
    assert phases["wrong"]["reason"] == "off by one"
    assert phases["raising"]["reason"] == "RuntimeError: no more"
    assert "Traceback" in phases["raising"]["output_tail"]
    assert phases["raising"]["result"] == {"tried": {"error": "ZeroDivisionError: division by zero"}}
    assert phases["trying"]["failed_attempts"] == ["0"]
    assert phases["in_vain"]["reason"] == "nothing that was tried went well: x"
    assert phases["leaving"]["reason"] == "ended with exit code 3"
    # What a phase started ends with it; an ended child may still be listed until somebody waits for it.
    child = phases["hang"]["result"]["child"]
    assert not Path(f"/proc/{child}").exists() or _state_of(child) == "Z"

    found = phases["unsteady"]["result"]
    assert found.pop("restarts") == [
        "ended by SIGSEGV after crash",
        "did not end within 1 s after hang",
        "its CUDA context was unusable after poison",
    ]
    assert (found.pop("good"), found.pop("last")) == (7, ["crash", "good", "hang", "poison", "wrong"])
    assert {name: value["error"].split(":")[0] for name, value in found.items()} == {
        "wrong": "ZeroDivisionError",
        "crash": "ended by SIGSEGV",
        "hang": "did not end within 1 s",
        "poison": "ZeroDivisionError",
    }


def test_what_was_measured_is_in_the_file_when_the_whole_run_is_killed(own_phases: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    _plan(own_phases, [Phase("good", 6), Phase("hang", 60)])
    command = [sys.executable, own_phases / "run.py", "--smoke", "--out", out]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    report: dict[str, Any] = {}
    deadline = time.monotonic() + 30
    while "child" not in report.get("phases", {}).get("hang", {}).get("result", {}) and time.monotonic() < deadline:
        time.sleep(0.1)
        report = json.loads(out.read_text()) if out.exists() else {}
    phase = _parent_of(report["phases"]["hang"]["result"]["child"])
    process.kill()
    process.wait()

    assert json.loads(out.read_text()) == report
    assert (report["complete"], report["phases"]["hang"]["status"]) == (False, "running")
    assert report["phases"]["good"]["result"] == {"a": {"b": 1}}
    # The phase ends with it, and leaves the device.
    while Path(f"/proc/{phase}").exists() and _state_of(phase) != "Z" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{phase}").exists() or _state_of(phase) == "Z"
    os.kill(report["phases"]["hang"]["result"]["child"], signal.SIGKILL)


def _state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def _parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def test_no_phase_begins_when_the_budget_is_spent(own_phases: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    ended = run(sys.executable, own_phases / "run.py", "--smoke", "--out", out, "--budget", "1")

    assert ended.returncode == 2
    assert {phase["status"] for phase in json.loads(out.read_text())["phases"].values()} == {"not run"}


def test_time_is_kept_for_a_phase_that_reserves_it(own_phases: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    _plan(own_phases, [Phase("good", 6), Phase("last", 6, reserve_s=8)])
    ended = run(sys.executable, own_phases / "run.py", "--smoke", "--out", out, "--budget", "30", "--spent", "20")
    phases = json.loads(out.read_text())["phases"]

    assert ended.returncode == 2
    assert {name: phase["status"] for name, phase in phases.items()} == {"good": "not run", "last": "ok"}
    assert phases["good"]["reason"] == "only 2 s of the budget were left for it"


def test_a_phase_gets_its_limit_or_what_is_not_reserved() -> None:
    phase, later = Phase("a", 90), (Phase("b", 50), Phase("c", 50, reserve_s=40))

    assert [allowed(phase, later, left) for left in (500, 100, 30)] == [90, 60, -10]
    assert allowed(phase, (), 50) == 50


def test_what_is_reserved_is_granted_even_when_every_phase_before_takes_all_it_may() -> None:
    for plan in PLANS.values():
        left = plan.budget_s
        for index, phase in enumerate(plan.phases):
            granted = max(0.0, allowed(phase, plan.phases[index + 1 :], left))
            assert granted >= phase.reserve_s, phase
            assert phase.name not in ("device", "kernels_build") or granted == phase.limit_s
            left -= granted


def test_the_sanitizer_gets_its_time_where_the_others_take_what_they_are_expected_to() -> None:
    left, phases = PLANS["confirm"].budget_s, PLANS["confirm"].phases
    expected = {"device": 5, "kernels_build": 45, "floors": 20, "kernels_correct": 100}  # else all they may
    granted = {}
    for index, phase in enumerate(phases):
        granted[phase.name] = allowed(phase, phases[index + 1 :], left)
        left -= min(expected.get(phase.name, granted[phase.name]), granted[phase.name])

    assert granted["kernels_time"] >= 80
    assert granted["kernels_sanitizer"] >= 90


@pytest.mark.parametrize(("plan", "seconds"), [("confirm", 370), ("tune", 330), ("all", 600)])
def test_a_plan_s_budget_leaves_time_to_end(plan: str, seconds: float) -> None:
    assert PLANS[plan].budget_s <= seconds - 5


def test_a_worker_that_never_listens_is_told_by_what_it_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "worker.py").write_text("raise SystemExit('no torch')\n")
    monkeypatch.setattr(isolated, "_PROGRAM", tmp_path / "worker.py")
    work = Work(tmp_path, "any", smoke=True, deadline=time.monotonic() + 30)
    with pytest.raises(isolated.WorkerError, match="exit code 1: no torch"):
        list(isolated.Isolated(work, "any", {"more than a pipe holds": "x" * 10**6}))


def test_a_number_that_json_has_not_is_recorded_as_null(tmp_path: Path) -> None:
    work = Work(tmp_path, "any", smoke=False, deadline=0)
    work.record("a", value={"b": [float("nan"), 1.5], "c": float("inf")})

    assert "NaN" not in (tmp_path / "any.json").read_text()
    assert work.of("any") == {"a": {"b": [None, 1.5], "c": None}}


_CORRECT: dict[str, Any] = {"stage": "ran", "correct": True}
_REFUSED: dict[str, Any] = {"stage": "built", "error": "no kernel"}


@pytest.mark.parametrize(
    ("attempts", "runs", "text"),
    [
        # What counts is what `samrt build` asks for: the GPU at hand.
        ({"CURRENT": _CORRECT, "default": _REFUSED}, True, "correct when built for CURRENT"),
        (
            {"CURRENT": _REFUSED, "default": _CORRECT, "SM80": _CORRECT},
            False,
            "correct on this device when built for default, SM80, but not for CURRENT, as `samrt build` does; "
            "CURRENT: no kernel",
        ),
        ({"CURRENT": _REFUSED, "default": _REFUSED}, False, "no engine ran correctly on this device"),
        ({"default": _CORRECT}, True, "correct when built for default"),
        ({"default": _REFUSED}, False, "default: no kernel"),
        ({"default": {"stage": "ran", "correct": False, "difference": 0.5}}, False, "wrong by 0.5"),
    ],
)
def test_concludes_whether_a_flavour_runs(
    tmp_path: Path, attempts: dict[str, dict[str, Any]], runs: bool, text: str
) -> None:
    work = Work(tmp_path, "tensorrt", smoke=False, deadline=0)
    work.record("tensorrt_rtx", "attempts", value=attempts)
    tensorrt._conclude(work, "tensorrt_rtx")

    assert tensorrt.runs(work, "tensorrt_rtx") is runs
    assert text in work.of("tensorrt")["tensorrt_rtx"]["reason"]
    if not runs:
        with pytest.raises(NotHereError, match=re.escape(text)):
            engines.run(Work(tmp_path, "engines", smoke=False, deadline=0))


def test_stock_tensorrt_is_built_as_it_is_by_default(tmp_path: Path) -> None:
    work = Work(tmp_path, "tensorrt", smoke=False, deadline=0)
    work.record("tensorrt", "attempts", value={"default": _CORRECT, "CURRENT": _REFUSED})
    tensorrt._conclude(work, "tensorrt")

    assert tensorrt.runs(work, "tensorrt")


def test_tries_first_what_counts_and_keeps_it_when_time_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def attempt(flavour: str, target: str) -> dict[str, Any]:
        tried.append(target)
        if len(tried) == 2:
            raise KeyboardInterrupt
        return _CORRECT

    monkeypatch.setattr(tensorrt, "installed_flavours", lambda: {"tensorrt_rtx": "1.7"})
    monkeypatch.setattr(tensorrt, "capabilities", lambda flavour: ["default", "CURRENT", "SM80"])
    monkeypatch.setattr(tensorrt, "_attempt", attempt)
    work = Work(tmp_path, "tensorrt", smoke=False, deadline=0)
    with pytest.raises(KeyboardInterrupt):
        tensorrt.run(work)

    assert tried == ["CURRENT", "default"]
    assert tensorrt.runs(work, "tensorrt_rtx")
