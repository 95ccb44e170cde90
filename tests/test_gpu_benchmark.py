"""`benchmarks/gpu` without a GPU: that it says so, that all of it runs, and that no phase can spoil another."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

_FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu"
sys.path.append(str(_FOLDER))

import floors  # noqa: E402
import timing  # noqa: E402
import wheels  # noqa: E402
from phases import PHASES, Phase, allowed, engines, tensorrt  # noqa: E402
from work import NotHereError, Work  # noqa: E402


def _run(command: list[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
    # No GPU is seen, also where there is one.
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable, **environment}
    return subprocess.run([*map(str, command)], env=hidden, capture_output=True, text=True, timeout=300, check=False)


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    ended = _run([_FOLDER / "run.sh"], OUT=str(tmp_path))

    assert ended.returncode == 1
    assert ended.stdout.startswith("There is no NVIDIA GPU that can be used here")
    assert ended.stdout.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    ended = _run([_FOLDER / "run.sh", tmp_path / "absent" / "gpu.json", "--smoke"])

    assert ended.returncode == 1
    assert "does not exist" in ended.stderr
    assert (ended.stdout, ended.stderr.count("\n")) == ("", 1)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of one smoke run; `OUT` is a folder, as where results are collected."""
    folder = tmp_path_factory.mktemp("out")
    ended = _run([_FOLDER / "run.sh", "--smoke"], OUT=str(folder))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report: dict[str, Any] = json.loads((folder / "gpu.json").read_text())
    return report


def test_the_smoke_run_passes_through_every_phase_and_claims_no_device(smoke: dict[str, Any]) -> None:
    statuses = {name: phase["status"] for name, phase in smoke["phases"].items()}

    assert smoke["smoke"] is True
    assert set(statuses.values()) == {"ok", "skipped"}
    for phase in smoke["phases"].values():
        assert ("reason" in phase) == (phase["status"] == "skipped")
    for name in ("device", "floors", "bundles", "image_to_mask", "leaks", "torch_eager"):
        assert statuses[name] == "ok", name
    assert "device" not in smoke["phases"]["device"]["result"]
    assert "gpu_ms" not in json.dumps(smoke)
    assert smoke["phases"]["floors"]["result"]["rates"] == {}


def test_the_smoke_run_builds_engines_where_tensorrt_rtx_is(smoke: dict[str, Any]) -> None:
    pytest.importorskip("tensorrt_rtx")
    attempt = smoke["phases"]["tensorrt"]["result"]["tensorrt_rtx"]

    assert attempt["attempts"]["default"]["stage"] == "built"
    assert attempt["runs"] is False
    assert attempt["attempts"]["default"]["error"] in attempt["reason"]
    built = smoke["phases"]["engines"]["result"]["tensorrt_rtx small_augmented"]["build"]
    assert [name for name in built["files"] if name.endswith("encoder.engine")]


def test_the_forms_of_attention_in_torch_agree(smoke: dict[str, Any]) -> None:
    result = smoke["phases"]["torch_eager"]["result"]

    assert set(result["encoder"]) == {"materialised", "sdpa_bias", "sdpa_augmented"}
    for form in (*result["encoder"].values(), result["decoder"]):
        assert form["relative_l2_to_float32"] < 1e-5
        assert form["as called"]["wall_ms"]["min"] > 0


def test_counts_the_operations_of_a_vit_b(smoke: dict[str, Any]) -> None:
    counted = smoke["phases"]["floors"]["result"]["models"]["vit_b"]["encoder"]
    C, tokens, window, padded, heads, layers, windowed = 768, 64**2, 14**2, 70**2, 12, 12, 8
    # Only qkv is computed on the padding of the windows.
    linear = 2 * 3 * C**2 * (windowed * padded + (layers - windowed) * tokens) + 2 * 9 * C**2 * tokens * layers
    scores = 4 * C * ((layers - windowed) * tokens**2 + windowed * padded * window)
    # Per query and head one dot product with each row and each column of its window or grid.
    bias = 2 * (C // heads) * heads * 2 * ((layers - windowed) * tokens * 64 + windowed * padded * 14)
    ends = 2 * tokens * (3 * 16**2 * C + C * 256 + 9 * 256**2)

    assert counted["operations"] == linear + scores + bias + ends


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
    "last": "def run(work):\n    work.record('of_crash', value=work.of('crash'))\n",
}


@pytest.fixture
def own_phases(tmp_path: Path) -> Path:
    """A copy of the benchmark with other phases in its table."""
    copy = tmp_path / "gpu"
    shutil.copytree(_FOLDER, copy, ignore=shutil.ignore_patterns("wheels", "__pycache__", "*.json"))
    table = copy / "phases" / "__init__.py"
    head = table.read_text().split("PHASES = (")[0]
    table.write_text(head + f"PHASES = tuple(Phase(name, 6) for name in {list(_PHASES)!r})\n")
    for name, source in _PHASES.items():
        (copy / "phases" / f"{name}.py").write_text(source)
    return copy


def test_a_phase_that_crashes_or_hangs_loses_nothing_but_itself(own_phases: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    ended = _run([sys.executable, own_phases / "run.py", "--smoke", "--out", out])
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
    status = Path(f"/proc/{phases['hang']['result']['child']}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_no_phase_begins_when_the_budget_is_spent(own_phases: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    ended = _run([sys.executable, own_phases / "run.py", "--smoke", "--out", out, "--budget", "1"])

    assert ended.returncode == 2
    assert {phase["status"] for phase in json.loads(out.read_text())["phases"].values()} == {"not run"}


def test_time_is_kept_for_a_phase_that_reserves_it(own_phases: Path, tmp_path: Path) -> None:
    table, out = own_phases / "phases" / "__init__.py", tmp_path / "out.json"
    own = 'PHASES = (Phase("good", 6), Phase("last", 6, reserve_s=8))'
    table.write_text(re.sub(r"^PHASES = .*$", own, table.read_text(), flags=re.MULTILINE))
    ended = _run([sys.executable, own_phases / "run.py", "--smoke", "--out", out, "--budget", "10"])
    phases = json.loads(out.read_text())["phases"]

    assert ended.returncode == 2
    assert {name: phase["status"] for name, phase in phases.items()} == {"good": "not run", "last": "ok"}
    assert phases["good"]["reason"] == "2 s of the budget were left for it"


def test_a_phase_gets_its_limit_or_what_is_not_reserved() -> None:
    phase, later = Phase("a", 90), (Phase("b", 50), Phase("c", 50, reserve_s=40))

    assert [allowed(phase, later, left) for left in (500, 100, 30)] == [90, 60, -10]
    assert allowed(phase, (), 50) == 50


def test_what_is_reserved_is_granted_even_when_every_phase_before_takes_all_it_may() -> None:
    left = 570.0
    granted = {}
    for index, phase in enumerate(PHASES):
        granted[phase.name] = max(0.0, allowed(phase, PHASES[index + 1 :], left))
        left -= granted[phase.name]

    for name in ("kernels_build", "kernels_correct", "kernels_time", "bundles", "engines", "torch_eager"):
        assert granted[name] >= 60, name


class _Recorder:
    """Stands in for the driver: keeps the order of calls; time is their count."""

    l2_bytes = 50 << 20

    def __init__(self) -> None:
        self.calls: list[str] = []

    def memory(self, size: int) -> Any:
        from contextlib import nullcontext

        self.size = size
        return nullcontext(0)

    def fill(self, address: int, size: int, stream: int) -> None:
        self.calls.append(f"fill {size == self.size} {stream}")

    def mark(self, event: int, stream: int) -> None:
        self.calls.append(f"mark {event}")

    def milliseconds(self, start: int, end: int) -> float:
        return float(10 * start + end)

    def new_event(self) -> int:
        self.events = getattr(self, "events", 0) + 1
        return self.events

    def wait(self, stream: int) -> None:
        self.calls.append("wait")


def test_the_cache_is_flushed_before_the_first_event_of_every_run() -> None:
    driver = _Recorder()
    measured = timing.Clock(driver, stream=7).measure(lambda: driver.calls.append("call"), seconds=0)  # type: ignore[arg-type]

    assert measured["runs"] == 10
    assert driver.size >= 4 * driver.l2_bytes
    first = driver.calls.index("fill True 7")
    assert driver.calls[first : first + 40] == ["fill True 7", "mark 1", "call", "mark 2"] * 10
    assert driver.calls[:first] == ["call"] * 3 + ["wait", "call", "wait"], (
        "it warms up, and sees how long a call takes"
    )
    assert measured["gpu_ms"]["median"] == 12
    assert driver.calls[first + 40 :] == ["call", "wait"] * 10


def test_a_summary_has_median_and_spread() -> None:
    found = timing.summary([float(n) for n in range(101)])
    assert found == {"median": 50, "min": 0, "p10": 10, "p90": 90, "max": 100}


def test_a_floor_is_the_longer_of_arithmetic_and_memory() -> None:
    rates = {"half_operations_per_s": 1e12, "bytes_per_s": 1e9}
    counts = {
        "m": {"encoder": {"operations": 3 * 10**12, "bytes": 10**9}, "decoder": {"operations": 1, "bytes": 10**9}}
    }
    found = {"rates": rates, "models": counts}

    assert floors.floor(found, "m", "encoder") == {"ms": 3000, "bound_by": "arithmetic"}
    assert floors.floor(found, "m", "decoder") == {"ms": 1000, "bound_by": "memory"}
    assert "absent" in floors.floor({**found, "rates": {}}, "m", "encoder")
    assert "absent" in floors.floor(found, "n", "encoder")


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
        ({"CURRENT": _REFUSED, "default": _REFUSED}, False, "no way of building that was tried ran correctly"),
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


_THIS = f"cp{sys.version_info.major}{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a-1.0-py3-none-any.whl", True),
        ("a-1.0-py2.py3-none-any.whl", True),
        (f"a-1.0-{_THIS}-{_THIS}-manylinux_2_28_{os.uname().machine}.whl", True),
        (f"a-1.0-{_THIS}-none-manylinux_2_28_{os.uname().machine}.whl", True),
        (f"a-1.0-cp37-abi3-manylinux2014_{os.uname().machine}.whl", True),
        (f"a-1.0-cp27-cp27m-manylinux_2_28_{os.uname().machine}.whl", False),
        (f"a-1.0-{_THIS}-{_THIS}-manylinux_2_28_riscv64.whl", False),
        ("a.whl", False),
    ],
)
def test_takes_wheels_for_this_python_and_machine_only(name: str, fits: bool) -> None:
    assert (wheels.unfit(name) == "") is fits


def test_unpacks_wheels_whole_and_in_parts(tmp_path: Path) -> None:
    folder, site = tmp_path / "wheels", tmp_path / "site"
    folder.mkdir()
    site.mkdir()
    for name in ("whole", "split"):
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{name}.py", f"NAME = {name!r}\n")
    split = folder / "split-1.0-py3-none-any.whl"
    content = split.read_bytes()
    split.unlink()
    for index in range(11):  # the order of parts is by number, ten of them and more
        (folder / f"{split.name}.part{index:02}").write_bytes(
            content[index * 20 : (index + 1) * 20 if index < 10 else None]
        )
    (folder / "other-1.0-cp27-cp27m-any.whl").write_bytes(b"never opened")
    wheels.main(folder, site)

    assert (site / "whole.py").read_text() == "NAME = 'whole'\n"
    assert (site / "split.py").read_text() == "NAME = 'split'\n"
    assert not (site / "other.py").exists()


@pytest.mark.parametrize("lost", ["part00", "part01", "part02", "in the middle", "no zip"])
def test_a_wheel_that_is_damaged_or_lacks_a_part_is_left_out_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    folder, site = tmp_path / "wheels", tmp_path / "site"
    folder.mkdir()
    site.mkdir()
    wheel = folder / "broken-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("broken/__init__.py", "")
        archive.writestr("broken/data", os.urandom(3000))
    content = wheel.read_bytes()
    if lost.startswith("part"):
        wheel.unlink()
        for index in range(3):
            part = folder / f"{wheel.name}.part{index:02}"
            part.write_bytes(content[index * 1000 : (index + 1) * 1000 if index < 2 else None])
        (folder / f"{wheel.name}.{lost}").unlink()
    else:
        wheel.write_bytes(content[:1500] + bytes(10) + content[1510:] if lost == "in the middle" else b"no zip")
    with zipfile.ZipFile(folder / "good-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("good.py", "")
    wheels.main(folder, site)

    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "broken" in line and "is left out: it is damaged or lacks a part" in line]
    assert len(told) == 2
    assert (site / "good.py").exists()
    assert not (site / "broken").exists()
