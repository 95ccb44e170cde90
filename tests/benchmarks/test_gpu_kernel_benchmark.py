"""The plans `confirm` and `tune` of `benchmarks/gpu` on the kernels' source on the host, and what a phase concludes."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import goals
import gpu_smoke
import image_timing
import kernel_checks
import model_sizes
import pytest
import torch_attention
from isolated import Reporter
from kernel_library import AttentionKernel
from phases import PLANS, gpu_tests, kernels_correct, kernels_ncu, kernels_time
from work import Work, WrongResultError
from workers import encoders, layers
from workers.checks import PASSED

_SKIPPED = {"floors", "kernels_ncu", "kernels_sanitizer", "gpu_tests"}


@pytest.fixture(scope="module")
def confirm() -> dict[str, Any]:
    """What the plan's phases found."""
    return {name: phase["result"] for name, phase in gpu_smoke.smoke("confirm")["phases"].items()}


@pytest.mark.parametrize("plan", ["confirm", "tune"])
def test_a_plan_runs_on_the_host_and_claims_no_device(plan: str) -> None:
    report = gpu_smoke.smoke(plan)

    assert (report["plan"], report["smoke"], report["complete"]) == (plan, True, True)
    assert {name: phase["status"] for name, phase in report["phases"].items()} == {
        phase.name: "skipped" if phase.name in _SKIPPED else "ok" for phase in PLANS[plan].phases
    }
    assert report["phases"]["kernels_build"]["result"]["library"]["architectures"] == ["host"]
    assert "device" not in report["phases"]["device"]["result"]
    assert "gpu_ms" not in json.dumps(report)
    assert "error" not in json.dumps(report).replace("_error", "").replace("error of torch", "")


def test_every_kernel_is_compared_with_the_truth(confirm: dict[str, Any]) -> None:
    result = confirm["kernels_correct"]
    lines = (gpu_smoke.FOLDER.parents[1] / "kernels" / "attention" / "instances.def").read_text().splitlines()
    compiled = [line for line in lines if line.startswith("INSTANCE")]

    # And the default shape, for two number formats and two head dimensions.
    assert len(result["attention"]) == len(compiled) + 4
    for outcomes in result["attention"].values():
        assert set(outcomes) == {case.name for case in torch_attention.SMALL_CASES}
        assert all(outcome["largest_error"] > 0 for outcome in outcomes.values())
    assert set(result["tests/kernels"]) == set(kernel_checks.MODULES)
    for module in result["tests/kernels"].values():
        assert set(module["checks"].values()) == {PASSED}
        assert len(module["checks"]) == module["of"]


def test_every_contender_is_timed_and_no_goal_has_a_figure_without_a_gpu(confirm: dict[str, Any]) -> None:
    result = confirm["kernels_time"]

    assert len(result["attention"]) == 2
    for layer in result["attention"].values():
        with_bias = {goals.BIAS_READY, goals.BIAS_BUILT}
        peers = {goals.FLASH, goals.AUGMENTED, *with_bias, *(f"{name}, MATH" for name in with_bias)}
        assert set(layer["times"]) == {goals.DEFAULT_TILE, *peers}
        assert all("backend" in layer["times"][name] for name in peers)
        for times in layer["times"].values():
            assert times["relative_l2_to_float32"] < 0.002
            assert times["as called"]["wall_ms"]["min"] > 0
        assert layer["goals"]
        assert all((goal["got"], goal["met"]) == (None, None) for goal in layer["goals"])
    assert len(result["preprocessing"]) == 4
    assert len(result["postprocessing"]) == 4
    for job in (*result["preprocessing"].values(), *result["postprocessing"].values()):
        assert job["wall_ms"]["min"] > 0


def test_variants_are_ranked_and_encoders_compared() -> None:
    phases = gpu_smoke.smoke("tune")["phases"]
    variants, encoders = phases["kernels_variants"]["result"], phases["encoders"]["result"]["two blocks"]

    assert set(variants) == {"the measured library", "fastest first"}
    for times in variants["the measured library"]["times"].values():
        assert len(times) == 2
    assert set(variants["fastest first"]) == set(variants["the measured library"]["times"])
    for name in ("samrt", "sdpa_bias", "sdpa_augmented", "materialised", "samrt, compiled by block"):
        assert encoders[name]["relative_l2_to_float32"] < 3 * encoders["error of torch's half precision"]
    assert encoders["floor"]["operations"] > 0


def test_the_torch_operator_passes_its_checks() -> None:
    program = Path(__file__).resolve().parents[1] / "kernels" / "check_torch_operator.py"
    library = gpu_smoke.on_host()
    ended = gpu_smoke.run(sys.executable, program, library["SAMRT_KERNELS_LIBRARY"], **library)

    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_only_kernels_that_came_through_every_case_are_timed() -> None:
    first, *others = (case.name for case in model_sizes.cases(smoke=False))
    kernels = [AttentionKernel("fp16", 64, tile, f"t{tile}", True) for tile in range(4)]
    good, bad, cut_short, _ = kernels
    fine = {name: {"largest_error": 0.0} for name in others}
    outcomes = {
        str(good): {first: {"absent": "shared memory"}, **fine},
        str(bad): {first: {"error": "off"}, **fine},
        str(cut_short): fine,
    }

    # The phase need not have come to its end.
    assert model_sizes.correct(outcomes, kernels, smoke=False) == [good]


def test_on_a_device_a_check_that_did_not_run_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_part(work: Work, part: str) -> str:
        if part == kernels_correct.ATTENTION:
            work.record(f"{part} absent", value="No module named 'torch'")
        elif part == "check_image":
            work.record(kernels_correct.CHECKS, part, "absent", value="No module named 'cv2'")
        return ""

    monkeypatch.setattr(kernels_correct.kernel_library, "use", lambda work: None)
    monkeypatch.setattr(kernels_correct, "_run_part", run_part)
    kernels_correct.run(Work(tmp_path, "kernels_correct", smoke=True, deadline=0))
    work = Work(tmp_path, "kernels_correct", smoke=False, deadline=0)
    with pytest.raises(
        WrongResultError, match=r"check_image was not checked: .*; attention was not checked: No module"
    ):
        kernels_correct.run(work)


def test_a_broken_package_is_not_an_absent_one() -> None:
    assert kernel_checks.is_not_installed(ImportError("x", name="no_such_package.part"))
    assert not kernel_checks.is_not_installed(ImportError("libGL.so.1: cannot open", name="cv2"))
    assert not kernel_checks.is_not_installed(ImportError("cannot tell"))


def test_where_no_kernel_was_found_correct_their_times_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "load_kernels", lambda: None)
    monkeypatch.setattr(layers, "attention_kernels", lambda kernels: [])
    monkeypatch.setattr(layers, "layers", lambda smoke: [])
    report = Reporter([], lambda: True)
    layers.serve(Work(tmp_path, "layers", smoke=True, deadline=0), report)

    assert "was found correct" in report.values["attention of samrt",]["error"]


def test_a_bad_image_kernel_costs_no_other_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def memory(driver: Any) -> Any:
        yield
        raise RuntimeError("cuMemFree_v2: an illegal address")

    def jobs(*_: Any) -> Any:
        yield image_timing.Job("rgb", lambda: 1 // 0, None)

    jobs.__name__ = "preprocessing"
    monkeypatch.setattr(kernels_time.kernel_checks, "memory", memory)
    monkeypatch.setattr(kernels_time.kernel_library, "use", lambda work: None)
    monkeypatch.setattr(kernels_time, "_measure_layers", lambda work: work.record("attention", value={}))
    monkeypatch.setattr(image_timing, "preprocessing", jobs)
    monkeypatch.setattr(image_timing, "postprocessing", jobs)
    work = Work(tmp_path, "kernels_time", smoke=True, deadline=0)
    kernels_time.run(work)
    found = work.of("kernels_time")

    assert list(found) == ["attention", "preprocessing"]
    assert "ZeroDivisionError" in found["preprocessing"]["rgb"]["error"]
    assert "illegal address" in found["preprocessing"]["the rest"]["error"]
    assert not any(work.attempts.values())


def test_encoders_are_compiled_form_by_form_and_what_was_left_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str, bool]] = []

    class Encoder:
        error_of_torch = 0.0

        def __init__(self, work: Work, driver: Any, model: str) -> None:
            self.model = model

        def times(self, name: str, compiled: bool) -> None:
            calls.append((self.model, name, compiled))

    monkeypatch.setattr(encoders, "_Encoder", Encoder)
    monkeypatch.setattr(encoders, "_floor", lambda work, model: {})
    monkeypatch.setattr(encoders, "warm_driver", lambda smoke: None)
    monkeypatch.setattr(encoders, "encoder_configs", lambda smoke: {"b": None, "h": None})
    encoders.serve(Work(tmp_path, "w", smoke=False, deadline=time.monotonic() + 60), Reporter([], lambda: True))
    assert calls[8:12] == [
        ("b", "samrt", True), ("h", "samrt", True), ("b", "flex_attention", True), ("h", "flex_attention", True)
    ]  # fmt: skip

    calls.clear()
    report = Reporter([], lambda: True)
    encoders.serve(Work(tmp_path, "w", smoke=False, deadline=time.monotonic() + 15), report)
    assert not any(compiled for _, _, compiled in calls)
    assert len(calls) == 8
    assert report.values["h", "samrt, compiled by block"]["absent"].endswith("s were left")


_TESTS = {
    "test_a": "import pytest\ndef test_skips(): pytest.skip('none')\ndef test_fails(): assert 0\n",
    "test_b": "import os\ndef test_crashes(): os.kill(os.getpid(), 11)\ndef test_after(): pass\n",
    "test_c": "import no_such_module\n",
    "test_d": "",
}


def test_a_test_that_ends_its_process_costs_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tests" / "gpu"
    folder.mkdir(parents=True)
    for name, source in _TESTS.items():
        (folder / f"{name}.py").write_text("def test_passes(): pass\n" + source)
    monkeypatch.setattr(gpu_tests, "_ROOT", tmp_path)
    work = Work(tmp_path, "gpu_tests", smoke=False, deadline=time.monotonic() + 60)
    with pytest.raises(
        WrongResultError, match=r"(?s)^test_b ended by SIGSEGV, in test_b.py::test_crashes; .*; 2 tests failed$"
    ):
        gpu_tests.run(work)
    found = work.of("gpu_tests")

    assert found["passed"] == [f"{name}.py::test_passes" for name in ("test_a", "test_b", "test_d")]
    assert found["skipped"] == ["test_a.py::test_skips: Skipped: none"]
    assert [text.split(":")[0] for text in found["failed"]] == ["test_a.py", "test_c.py"]
    assert "no_such_module" in found["failed"][1]


# As ncu writes it, its own messages first.
_NCU = """#!/bin/sh
for word in "$@"; do if [ "$last" = --log-file ]; then log="$word"; fi; last="$word"; done
case "$*" in *" --metrics "*) echo "==ERROR== Failed to find metric" > "$log"; exit 1 ;; esac
cat > "$log" <<'END'
==PROF== Connected to process 1
"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value","Rule Name"
"0","attention","SpeedOfLight","Duration","us","171.4",""
"0","attention","MemoryWorkloadAnalysis","Duration","us","171.5",""
"0","attention","Launch Statistics","Registers Per Thread","register/thread","1,88",""
"0","attention","Occupancy","","","","Occupancy"
END
"""


def test_ncu_s_counts_are_kept_beside_those_it_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ncu").write_text(_NCU)
    (tmp_path / "ncu").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    kernels = SimpleNamespace(path="x", attention_tiles=lambda: ("a", "b", "c"))
    monkeypatch.setattr(kernels_ncu.kernel_library, "use", lambda work: kernels)
    monkeypatch.setattr(kernels_ncu.kernel_library, "has_tile", lambda kernels, head_dim, tile: tile > 0)
    times = {"samrt, b": {"ms": 2.0}, "samrt, c": {"ms": 1.0}}
    timed = Work(tmp_path, "kernels_time", smoke=False, deadline=0)
    layer = str(layers.Layer("ViT-B", 12, 64, 1, 14))
    timed.record("attention", layer, "times", value=times)
    work = Work(tmp_path, "kernels_ncu", smoke=False, deadline=time.monotonic() + 60)
    kernels_ncu.run(work)

    for layer, ranked in (("global", ["b", "c"]), ("windows of 14", ["c", "b"])):
        found = work.of("kernels_ncu")[layer]
        assert list(found) == [goals.DEFAULT_TILE, *ranked]
        assert found["b"]["sections"] == {
            "kernel": "attention",
            "SpeedOfLight": {"Duration": "171.4 us"},
            "MemoryWorkloadAnalysis": {"Duration": "171.5 us"},
            "Launch Statistics": {"Registers Per Thread": "1,88 register/thread"},
        }
        assert "Failed to find metric" in found["b"]["counters"]["error"]
