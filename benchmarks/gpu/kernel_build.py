"""Compiling the kernel library from this checkout, for one architecture, into a folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_TAIL = 1200


class NoCompilerError(Exception):
    """CMake or nvcc is not here; the text says which."""


def build(folder: Path, architecture: str, seconds: float) -> Path:
    """Compile `libsamrt_kernels.so` for `architecture` ("90") within `seconds`; the file.

    Raises:
        NoCompilerError: there is no CMake, or it finds no nvcc.
        RuntimeError: the compilation failed; the message is its errors.
    """
    # The wheels of both put them beside Python, which may not be on PATH.
    places = os.pathsep.join((os.environ.get("PATH", ""), str(Path(sys.executable).parent)))
    cmake, ninja = shutil.which("cmake", path=places), shutil.which("ninja", path=places)
    if cmake is None:
        raise NoCompilerError("there is no cmake")
    # CMake's own choice is make, which may not be here.
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    architectures = f"-DCMAKE_CUDA_ARCHITECTURES={architecture}"
    _call([cmake, "-S", str(ROOT), "-B", str(folder), *generator, architectures], seconds)
    skipped = json.loads((folder / "samrt_build.json").read_text(encoding="utf-8"))["kernels_skipped"]
    if skipped:
        raise NoCompilerError(skipped)
    jobs = str(os.cpu_count() or 1)
    _call([cmake, "--build", str(folder), "--target", "samrt_kernels", "--parallel", jobs], seconds)
    return folder / "libsamrt_kernels.so"


def _call(command: list[str], seconds: float) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if ended.returncode:
        said = ended.stdout + ended.stderr
        errors = [line.strip() for line in said.splitlines() if "error" in line.lower()]
        told = "\n".join(errors)[:_TAIL] or said[-_TAIL:]
        raise RuntimeError(f"{' '.join(command[:2])} ended with {ended.returncode}: {told}")
