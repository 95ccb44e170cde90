"""Compiles the kernels for tests, each way once per run; what did not change since the last run is not compiled again.

The folders lie in `.venv/kernels`, which `make clean` removes.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from absent import absent

ROOT = Path(__file__).resolve().parent.parent
_FOLDERS = ROOT / ".venv" / "kernels"
_SECONDS = 1500


@functools.cache
def host_build(target: str = "samrt_kernels_host") -> Path:
    """The folder with the file of a target of cmake/host_kernels.cmake: what runs the kernels' source on the CPU."""
    needs("cmake", "g++")
    return _built("host", ["-DSAMRT_HOST_KERNELS=ON"], target)


@functools.cache
def device_build() -> Path:
    """libsamrt_kernels.so for all architectures, with ptxas's reports: the folder. Minutes, the first time."""
    needs("cmake", "g++")
    nvcc()
    return _built("device", ["-DSAMRT_RESOURCE_REPORT=ON", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"], "all")


def sanitized_environment() -> dict[str, str]:
    """For a process that is to load libsamrt_kernels_host.so: AddressSanitizer must come first of all libraries.

    The C++ library comes right after it: it must be there when the sanitizer looks for it, as torch and OpenCV throw.
    """

    def path(library: str) -> str:
        command = ["g++", f"-print-file-name={library}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    # Python itself ends with memory that it never gave back.
    preload = f"{path('libasan.so')} {path('libstdc++.so.6')}"
    return {**os.environ, "LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0"}


def run_cmake(arguments: Sequence[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """CMake with both streams in `stdout`."""
    return subprocess.run(
        ["cmake", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def nvcc() -> str:
    """The nvcc that CMake will take; without one, the test is skipped."""
    found = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    return found or absent("there is no nvcc here to compile the kernels with")


def needs(*programs: str) -> None:
    """Skip the test where one of the programs is not here."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the kernels are made for Linux")
    for program in programs:
        if shutil.which(program) is None:
            absent(f"there is no {program} here to compile the kernels with")


def _built(name: str, options: Sequence[str], target: str) -> Path:
    folder = _FOLDERS / name
    folder.mkdir(parents=True, exist_ok=True)
    jobs = str(len(os.sched_getaffinity(0)))
    done = run_cmake(["-S", str(ROOT), "-B", str(folder), *options])
    if done.returncode:
        # A compiler that the folder remembers may be gone. This throws the object files away too.
        done = run_cmake(["--fresh", "-S", str(ROOT), "-B", str(folder), *options])
    if done.returncode == 0:
        done = run_cmake(["--build", str(folder), "--target", target, "--parallel", jobs])
    if done.returncode:
        pytest.fail(f"{' '.join(done.args)}:\n{done.stdout[-6000:]}")
    return folder
