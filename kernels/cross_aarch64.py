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
from collections.abc import Mapping
from pathlib import Path

from build import cmake_is_too_old

PROCESSOR = "aarch64"
# The package index has ARM's runtime under this name since then.
_OLDEST_CUDA = 13
_COMPILER = "aarch64-linux-gnu-g++"
_TOOLCHAIN = f"""\
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR {PROCESSOR})
set(CMAKE_CXX_COMPILER {_COMPILER})
set(CMAKE_CUDA_HOST_COMPILER {_COMPILER})
"""


class CrossError(Exception):
    """What is missing on this machine to compile for ARM."""


def cross_environment(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The variables, with those under which pip and CMake build for ARM. `folder` gets a toolkit for the build.

    Raises:
        CrossError: a compiler, CMake or CUDA's toolkit is missing, or the runtime cannot be fetched.
    """
    if shutil.which(_COMPILER) is None:
        raise CrossError(f"there is no {_COMPILER}: on Debian and Ubuntu, apt-get install g++-aarch64-linux-gnu")
    if cmake_is_too_old():  # pip would fetch ARM's
        raise CrossError("CMake is missing or too old: install CMake 3.24 or newer, as with `pip install cmake`")
    nvcc = _nvcc()
    toolkit = nvcc.parent.parent
    # nvcc finds its parts from where it lies itself, so it has to be a copy; the rest may be links.
    cross = folder / "cuda"
    shutil.copytree(toolkit / "bin", cross / "bin", ignore_dangling_symlinks=True)
    (cross / "nvvm").symlink_to(toolkit / "nvvm")
    target = cross / "targets" / "sbsa-linux"
    target.mkdir(parents=True)
    (target / "include").symlink_to((toolkit / "include").resolve())
    _fetch_runtime(_version(nvcc), target / "lib")
    (folder / "toolchain.cmake").write_text(_TOOLCHAIN)
    return {
        **{name: value for name, value in environment.items() if name != "SAMRT_NVCC"},
        "CUDACXX": str(cross / "bin" / "nvcc"),
        "CMAKE_TOOLCHAIN_FILE": str(folder / "toolchain.cmake"),
        "_PYTHON_HOST_PLATFORM": f"linux-{PROCESSOR}",
    }


def _nvcc() -> Path:
    """That of a whole toolkit. The one on PATH may be a script; then the one in the usual place counts."""
    named = os.environ.get("CUDACXX")
    found = [shutil.which(name) for name in ([named] if named else ["nvcc", "/usr/local/cuda/bin/nvcc"])]
    for path in (Path(each).resolve() for each in found if each):
        if (path.parent.parent / "nvvm").is_dir() and (path.parent.parent / "targets").is_dir():
            return path
    looked = f"CUDACXX={named}" if named else "looked on PATH and in /usr/local/cuda"
    raise CrossError(
        f"there is no nvcc of a CUDA toolkit from NVIDIA's packages or installer ({looked}): install CUDA 13's "
        "toolkit, or name its nvcc with CUDACXX"
    )


def _version(nvcc: Path) -> str:
    """As "13.0"."""
    done = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"release (\d+\.\d+)", done.stdout)
    if found is None or int(found[1].split(".")[0]) < _OLDEST_CUDA:
        raise CrossError(
            f"{nvcc} is of CUDA {found[1] if found else '(unknown)'}; it takes CUDA {_OLDEST_CUDA} or newer"
        )
    return found[1]


def _fetch_runtime(version: str, target: Path) -> None:
    wheels = target.parent / "wheels"
    platforms = [f"--platform={name}_{PROCESSOR}" for name in ("manylinux2014", "manylinux_2_17", "manylinux_2_27")]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", *platforms]
    done = subprocess.run([*command, "-d", str(wheels), f"nvidia-cuda-runtime=={version}.*"], check=False)
    if done.returncode:
        raise CrossError(f"pip cannot fetch CUDA's runtime {version} for {PROCESSOR}; see its output above")
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".a")]
        target.mkdir()
        for name in libraries:
            (target / Path(name).name).write_bytes(archive.read(name))
    if not (target / "libcudart_static.a").is_file():
        raise CrossError(f"CUDA's runtime {version} for {PROCESSOR} has no libcudart_static.a in its wheel")
