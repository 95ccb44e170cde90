"""The phase of `benchmarks/gpu` that watches the kernels with compute-sanitizer, with stand-ins for it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cuda_tools
import kernel_checks
import numpy as np
import planted_faults
import pytest
import sanitized
from guarded_memory import Device, GuardedMemory
from kernel_builds import nvcc
from phases import kernels_sanitizer
from work import NotHereError, Work, WrongResultError


@pytest.mark.parametrize(
    ("code", "said", "verdict"),
    [
        (0, "ran to the end\n========= ERROR SUMMARY: 0 errors", "clean"),
        (0, "ran to the end\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", "clean"),
        (77, "========= Invalid __global__ read\nran to the end\n========= ERROR SUMMARY: 1 error", "found"),
        (77, "ran to the end\n========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)", "found"),
        # A warning is no error to the tool, and no clean run to us.
        (0, "ran to the end\n========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)", "failed"),
        (0, "========= ERROR SUMMARY: 0 errors", "failed"),
        (0, "ran to the end", "failed"),
        (1, "Traceback\n========= ERROR SUMMARY: 0 errors", "failed"),
        (255, "========= Error: Target application terminated before first instrumented API call", "failed"),
        (None, "did not end within 50 s", "failed"),
    ],
)
def test_judges_a_run_under_the_sanitizer(code: int | None, said: str, verdict: str) -> None:
    assert kernels_sanitizer.judge_kernels(code, said)["verdict"] == verdict


def test_a_planted_fault_is_found_by_its_own_report_only() -> None:
    for name, fault in planted_faults.FAULTS.items():
        assert kernels_sanitizer.judge_planted(name, 77, f"========= {fault.report} of size 4")["verdict"] == "found"
        assert kernels_sanitizer.judge_planted(name, 0, f"========= {fault.report} of size 4")["verdict"] == "missed"
        assert (
            kernels_sanitizer.judge_planted(name, 77, "Program hit error 999 on CUDA API call")["verdict"] == "missed"
        )


@pytest.mark.parametrize(
    ("planted", "kernels", "outcome", "text"),
    [
        (("found", "found"), ("clean", "clean"), None, ""),
        (("found", "found"), ("clean", "found"), WrongResultError, "racecheck, check_image: found"),
        (("found", "found"), ("failed", "clean"), WrongResultError, "memcheck, check_image: failed"),
        (("found", "missed"), ("clean", "clean"), WrongResultError, "racecheck: missed its planted fault"),
        (("missed", "missed"), ("failed", "failed"), NotHereError, "does not work on this device"),
        # Its planted fault may be reported in words that a new version changed; what it found in ours is no less true.
        (
            ("missed", "missed"),
            ("found", "clean"),
            WrongResultError,
            "memcheck, check_image: found; memcheck: missed its planted fault",
        ),
    ],
)
def test_the_sanitizer_passes_only_where_it_sees(
    tmp_path: Path, planted: tuple[str, ...], kernels: tuple[str, ...], outcome: Any, text: str
) -> None:
    work = Work(tmp_path, "kernels_sanitizer", smoke=False, deadline=0)
    for name, found, of_kernels in zip(("memcheck", "racecheck"), planted, kernels, strict=True):
        work.record("tools", name, value={"planted": {"verdict": found}, "check_image": {"verdict": of_kernels}})
    if outcome is None:
        kernels_sanitizer._conclude(work)
        return
    with pytest.raises(outcome, match=text):
        kernels_sanitizer._conclude(work)


_TOOL = """#!/bin/sh
case "$*" in
  --version) echo "a stand-in" ;;
  "--tool "*" --error-exitcode 77 --port "*" --launch-timeout 0 "*"sanitized.py x check_"*)
    echo "ran to the end"; echo "ERROR SUMMARY: 0 errors" ;;
  *" planted memcheck") echo "Invalid __global__ write"; exit 77 ;;
  *" planted racecheck") echo "Race reported between"; exit 77 ;;
  *" planted initcheck") echo "Uninitialized __global__ memory read"; exit 77 ;;
esac
"""


@pytest.mark.parametrize(
    ("tool", "verdict", "error", "text"),
    [
        (_TOOL, "clean", None, ""),
        (_TOOL.replace("0 errors", "1 error"), "failed", WrongResultError, "memcheck, check_attention: failed"),
        # One that hangs costs its own verdict alone.
        (
            _TOOL.replace("*)\n", "attention) exec sleep 60 ;;\n*check_*)\n", 1),
            None,
            WrongResultError,
            "attention: failed",
        ),
        ("#!/bin/sh\necho Device not supported\nexit 255\n", None, NotHereError, "does not work on this device"),
    ],
)
def test_runs_each_tool_on_its_fault_and_on_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, verdict: str | None, error: Any, text: str
) -> None:
    (tmp_path / "compute-sanitizer").write_text(tool)
    (tmp_path / "compute-sanitizer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(kernels_sanitizer.kernel_library, "use", lambda work: SimpleNamespace(path=Path("x")))
    work = Work(tmp_path, "kernels_sanitizer", smoke=False, deadline=time.monotonic() + 3)
    with contextlib.nullcontext() if error is None else pytest.raises(error, match=text):
        kernels_sanitizer.run(work)

    if verdict is not None:
        for parts in work.of("kernels_sanitizer")["tools"].values():
            assert {part: outcome["verdict"] for part, outcome in parts.items()} == {
                "planted": "found",
                **dict.fromkeys(kernel_checks.MODULES, verdict),
            }


def test_a_program_that_ran_no_kernel_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitized, "Driver", lambda: None)
    monkeypatch.setitem(sys.modules, "check_image", None)
    with pytest.raises(SystemExit, match="no kernel ran: "):
        sanitized.main("x", "check_image")


def test_a_missing_sanitizer_is_a_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_tools, "find", lambda name: None)
    monkeypatch.setattr(kernels_sanitizer.kernel_library, "use", lambda work: SimpleNamespace(path=Path("x")))
    with pytest.raises(NotHereError, match="compute-sanitizer was not found"):
        kernels_sanitizer.run(Work(tmp_path, "kernels_sanitizer", smoke=False, deadline=0))


def test_takes_the_sanitizer_from_an_unpacked_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "nvidia" / "cu13" / "compute-sanitizer"
    folder.mkdir(parents=True)
    (folder / "compute-sanitizer").write_text("#!/bin/sh\necho from a wheel\n")
    monkeypatch.setattr(cuda_tools.shutil, "which", lambda *args, **named: None)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = cuda_tools.find("compute-sanitizer")

    assert found is not None
    assert subprocess.run([found], capture_output=True, text=True, check=True).stdout == "from a wheel\n"


def test_takes_ncu_from_where_its_own_installer_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("2024.1.0", "2025.3.1"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "ncu").touch(mode=0o755)
    monkeypatch.setattr(cuda_tools, "_NSIGHT_COMPUTE", tmp_path)
    monkeypatch.setattr(cuda_tools, "_PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))

    assert cuda_tools.find("ncu") == tmp_path / "2025.3.1" / "ncu"


def test_every_byte_of_an_input_is_written() -> None:
    # Kernels load the whole word that an unaligned image begins in; initcheck would report the bytes before it.
    allocated, uploaded = {}, {}
    device = Device(lambda size: allocated.setdefault(4096, size) and 4096, print, uploaded.__setitem__, lambda *_: b"")
    address = GuardedMemory(device).put(np.arange(5, dtype=np.uint8), offset=3)

    assert address == 4096 + 3
    assert uploaded[4096][3:] == bytes(range(5))
    assert allocated[4096] == len(uploaded[4096]) == 8


@pytest.mark.parametrize("module", kernel_checks.MODULES)
def test_what_the_sanitizer_watches_is_there(module: str) -> None:
    assert sanitized.SMALL[module]
    assert set(sanitized.SMALL[module]) <= set(kernel_checks.names(module))


@pytest.mark.parametrize("tool", planted_faults.FAULTS)
def test_planted_faults_are_valid_ptx(tmp_path: Path, tool: str) -> None:
    ptxas = Path(nvcc()).parent / "ptxas"
    source = tmp_path / "planted.ptx"
    source.write_text(planted_faults.FAULTS[tool].ptx)
    command = [ptxas, "-arch=sm_90", source, "-o", tmp_path / "planted.cubin"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
