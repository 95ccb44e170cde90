"""What CMake makes of machines with another nvcc, with none, and of architectures that cannot be."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from kernel_builds import ROOT, needs, nvcc, run_cmake

# What nvcc 12.6, JetPack 6's, says; all else is left to the real one.
_OLD_NVCC = """#!/bin/sh
case "$*" in
  --version) echo "Cuda compilation tools, release 12.6, V12.6.68" ;;
  --list-gpu-arch) for n in 50 52 53 60 61 62 70 72 75 80 86 87 89 90; do echo compute_$n; done ;;
  *) exec {nvcc} "$@" ;;
esac
"""


def _configure(folder: Path, *options: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    needs("cmake", "g++")
    done = run_cmake(["-S", str(ROOT), "-B", str(folder), *options], environment)
    # CMake breaks messages into lines.
    return done.returncode, " ".join(done.stdout.split())


def _note(folder: Path) -> dict[str, str]:
    return dict(json.loads((folder / "samrt_build.json").read_text()))


def test_without_nvcc_it_configures_and_says_what_is_left_out(tmp_path: Path) -> None:
    needs("cmake", "g++", "make")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cmake", "g++", "c++", "make", "ar", "ld", "as", "ranlib", "uname", "sh"):
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    environment = {key: value for key, value in os.environ.items() if key not in ("CUDACXX", "CUDA_PATH")}
    code, said = _configure(
        tmp_path / "build",
        "-DCMAKE_IGNORE_PATH=/usr/local/cuda/bin;/usr/local/bin;/usr/bin",
        environment={**environment, "PATH": str(tools)},
    )

    assert code == 0, said
    assert "samrt: the CUDA kernels and the TensorRT plugin are left out: no nvcc was found" in said
    note = _note(tmp_path / "build")
    assert note["kernels_skipped"].startswith("no nvcc was found")
    assert note["architectures"] == note["nvcc"] == ""


def test_an_older_nvcc_leaves_out_what_it_does_not_know_and_says_so(tmp_path: Path) -> None:
    old = tmp_path / "nvcc"
    old.write_text(_OLD_NVCC.format(nvcc=nvcc()))
    old.chmod(0o755)
    code, said = _configure(tmp_path / "build", environment={**os.environ, "CUDACXX": str(old)})

    assert code == 0, said
    assert "samrt: nvcc 12.6.68 cannot compile for 100;110;120; left out" in said
    note = _note(tmp_path / "build")
    # The newest also as PTX: what JetPack 6 compiles runs on a newer GPU.
    assert (note["nvcc"], note["architectures"]) == ("12.6.68", "80;86;87;89;90;90-ptx")


def test_named_architectures_are_taken_as_they_are(tmp_path: Path) -> None:
    nvcc()
    code, said = _configure(tmp_path / "build", "-DCMAKE_CUDA_ARCHITECTURES=87;120")
    assert code == 0, said
    assert _note(tmp_path / "build")["architectures"] == "87;120"


@pytest.mark.parametrize(
    ("architectures", "message"),
    [
        ("75", "samrt: the kernels need compute capability 8.0 or newer, not 75"),
        ("87;999", "cannot compile for 999"),
        ("orin", 'samrt: "orin" is not an architecture; use all, native, or numbers such as 80;87'),
    ],
)
def test_refuses_architectures_that_cannot_be(tmp_path: Path, architectures: str, message: str) -> None:
    nvcc()
    code, said = _configure(tmp_path / "build", f"-DCMAKE_CUDA_ARCHITECTURES={architectures}")
    assert code != 0
    assert message in said


def test_native_needs_a_gpu(tmp_path: Path) -> None:
    nvcc()
    # No GPU answers to this.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    code, said = _configure(tmp_path / "build", "-DCMAKE_CUDA_ARCHITECTURES=native", environment=environment)
    assert code != 0
    assert "samrt: no GPU was found to compile for" in said


def test_a_broken_nvcc_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "nvcc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    code, said = _configure(tmp_path / "build", environment={**os.environ, "CUDACXX": str(broken)})
    assert code != 0
    assert f"samrt: {broken} does not run" in said
