"""Compiling the kernels for 64-bit ARM on an x86-64 machine: an nvcc that links with ARM's CUDA runtime.

nvcc makes the same machine code for GPUs on every processor. For the host it calls another compiler, and links CUDA's
runtime, which it looks for in `targets/sbsa-linux` of its toolkit. The package index has that runtime for ARM.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

PROCESSOR = "aarch64"
_COMPILER = "aarch64-linux-gnu-g++"
_TOOLCHAIN = f"""\
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR {PROCESSOR})
set(CMAKE_CXX_COMPILER {_COMPILER})
set(CMAKE_CUDA_HOST_COMPILER {_COMPILER})
"""


class CrossError(Exception):
    """What is missing on this machine to compile for ARM."""


def cross_environment(folder: Path) -> dict[str, str]:
    """Variables under which pip and CMake build for ARM. `folder` gets a toolkit, and has to outlive the build.

    Raises:
        CrossError: the compiler or CUDA's toolkit is missing, or the runtime cannot be fetched.
    """
    if shutil.which(_COMPILER) is None:
        raise CrossError(f"there is no {_COMPILER}: on Debian and Ubuntu, apt-get install g++-aarch64-linux-gnu")
    nvcc = _nvcc()
    toolkit = nvcc.parent.parent
    version = re.search(r"release (\d+\.\d+)", subprocess.check_output([nvcc, "--version"], text=True))
    if version is None or not (toolkit / "targets").is_dir():
        raise CrossError(
            f"{nvcc} is not part of a CUDA toolkit from NVIDIA's packages or installer, which it has to be"
        )
    # nvcc finds its parts from where it lies itself, so it has to be a copy; the rest may be links.
    cross = folder / "cuda"
    shutil.copytree(toolkit / "bin", cross / "bin")
    (cross / "nvvm").symlink_to(toolkit / "nvvm")
    target = cross / "targets" / "sbsa-linux"
    target.mkdir(parents=True)
    (target / "include").symlink_to((toolkit / "include").resolve())
    _fetch_runtime(version[1], target / "lib")
    (folder / "toolchain.cmake").write_text(_TOOLCHAIN)
    return {
        "CUDACXX": str(cross / "bin" / "nvcc"),
        "CMAKE_TOOLCHAIN_FILE": str(folder / "toolchain.cmake"),
        "_PYTHON_HOST_PLATFORM": f"linux-{PROCESSOR}",
    }


def _nvcc() -> Path:
    named = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if not named:
        raise CrossError("there is no nvcc: install CUDA's toolkit, or name its nvcc with CUDACXX")
    # A link or a script on PATH may stand for it.
    real = Path(named).resolve()
    for candidate in (real, Path("/usr/local/cuda/bin/nvcc").resolve()):
        if candidate.is_file() and (candidate.parent.parent / "nvvm").is_dir():
            return candidate
    return real


def _fetch_runtime(version: str, target: Path) -> None:
    wheels = target.parent / "wheels"
    platforms = [f"--platform={name}_{PROCESSOR}" for name in ("manylinux2014", "manylinux_2_17", "manylinux_2_27")]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", *platforms]
    done = subprocess.run([*command, "-d", str(wheels), f"nvidia-cuda-runtime=={version}.*"], check=False)
    if done.returncode:
        raise CrossError(f"pip cannot fetch CUDA's runtime {version} for {PROCESSOR}; its words are above")
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".a")]
        target.mkdir()
        for name in libraries:
            (target / Path(name).name).write_bytes(archive.read(name))
    if not (target / "libcudart_static.a").is_file():
        raise CrossError(f"CUDA's runtime {version} for {PROCESSOR} has no libcudart_static.a in its wheel")
