"""Compile the CUDA kernels and the TensorRT plugin, and put the libraries where `samrt.kernels.library` looks.

    python kernels/build.py                               into samrt/lib/ of this checkout
    python kernels/build.py --architectures native        for this machine's GPU; also "87", "80;87", "all"

`pip install .` does the same for the installation, through setup.py. `build.json` beside the libraries records the
result for `samrt doctor`, because pip hides the output of a successful build. Needs only the standard library.

Environment:
    SAMRT_CUDA_ARCHITECTURES    "native", "all", numbers such as "80;87", or "none"; by default those of this machine's
                                GPUs, or all if there is none.
    SAMRT_NVCC                  "wheels": use nvcc from the package index's wheels, not the machine's.
    CUDACXX                     the nvcc to use.
    CMAKE_BUILD_PARALLEL_LEVEL  how many compilers run in parallel; by default one per core.

If one of the first two is set and the kernels cannot be built, this is an error. Otherwise they are left out, and
`build.json` says why.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ROOT / "samrt" / "lib"

# For SAMRT_NVCC=wheels. Their dependencies include cudart, crt and nvvm. Only CUDA 13: the nvcc wheels of CUDA 12
# contain ptxas and no nvcc.
_NVCC_WHEELS = ("nvidia-cuda-nvcc==13.*", "nvidia-cuda-cccl==13.*")
_OLDEST_CMAKE = (3, 24)  # as CMakeLists.txt says
_CMAKE_WHEEL = "cmake>={}.{}".format(*_OLDEST_CMAKE)

# Must not match the names of source files, which make prints.
_ERROR = re.compile(r"^CMake Error|\b(error|fatal)( #\d+(-\w+)?)?\s*:", re.IGNORECASE)

_AGAIN = "in a checkout of samrt: pip install -v ."
_GET_NVCC = f"install CUDA's nvcc, or let pip fetch it: SAMRT_NVCC=wheels, then {_AGAIN}"
_SEE_OUTPUT = f"to see the full output, {_AGAIN}"


@dataclass(frozen=True)
class Note:
    """`build.json`, which `samrt.kernels.library.BuildNote` reads and explains."""

    kernels: str
    plugin: str
    remedy: str = ""
    nvcc: str = ""
    architectures: tuple[str, ...] = ()


class NotBuiltError(Exception):
    """The kernels were requested explicitly and could not be built; the message says why."""


class _LeftOutError(Exception):
    """Why something was not built, and how to get it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def build_requirements() -> list[str]:
    """The packages that pip must install into its temporary build environment.

    CMake, if nvcc is installed and CMake is too old, as on JetPack 6. A CMake that pip installed beside samrt cannot be
    used: pip hides installed packages from builds.
    """
    if os.environ.get("SAMRT_CUDA_ARCHITECTURES") == "none" or not sys.platform.startswith("linux"):
        return []
    wheels = os.environ.get("SAMRT_NVCC") == "wheels"
    cmake = [_CMAKE_WHEEL] if (wheels or find_nvcc()) and cmake_is_too_old() else []
    return [*_NVCC_WHEELS, *cmake] if wheels else cmake


def find_nvcc() -> str | None:
    """The nvcc that CMake will use; None if there is none."""
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def cmake_is_too_old() -> bool:
    """Or missing."""
    return _cmake_version() < _OLDEST_CMAKE


def build(target: Path, architectures: str, folder: Path = ROOT / "build" / "kernels") -> Note:
    """Compile in `folder`, and put the libraries and the note into `target`, which is emptied first.

    Args:
        target: the folder `samrt/lib` of an installation or a checkout.
        architectures: as SAMRT_CUDA_ARCHITECTURES; empty where it is not set.
        folder: CMake's.

    Raises:
        NotBuiltError: the kernels could not be built, and `architectures` or SAMRT_NVCC had asked for them.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    try:
        note = _build(target, architectures or _default_architectures(), folder)
    except _LeftOutError as left_out:
        if architectures != "none" and (architectures or os.environ.get("SAMRT_NVCC")):
            raise NotBuiltError(f"the CUDA kernels could not be built: {left_out.reason}") from None
        note = Note(*[f"not built: {left_out.reason}"] * 2, remedy=left_out.remedy)
    (target / "build.json").write_text(json.dumps(asdict(note), indent=2) + "\n", encoding="utf-8")
    _say(f"CUDA kernels: {note.kernels}; TensorRT plugin: {note.plugin}")
    if note.remedy:
        _say(f"to get what is missing: {note.remedy}")
    return note


def _build(target: Path, architectures: str, folder: Path) -> Note:
    if architectures == "none":
        raise _LeftOutError("SAMRT_CUDA_ARCHITECTURES was set to none", f"unset it, then {_AGAIN}")
    if not sys.platform.startswith("linux"):
        raise _LeftOutError("they support Linux only", "")
    oldest = "CMake {}.{} or newer".format(*_OLDEST_CMAKE)
    version = _cmake_version()
    if version < _OLDEST_CMAKE:
        found = "CMake {}.{} is installed".format(*version) if version else "CMake is not installed"
        raise _LeftOutError(f"they need {oldest}, and {found}", f"install {oldest}, then {_AGAIN}")
    _configure(architectures, folder)
    found = json.loads((folder / "samrt_build.json").read_text(encoding="utf-8"))
    if found["kernels_skipped"]:
        raise _LeftOutError(found["kernels_skipped"], _GET_NVCC)
    _compile(folder, "samrt_kernels", target)
    plugin, remedy = "built", ""
    try:
        for name in ("samrt_rtx_name", "samrt_plugin"):
            _compile(folder, name, target)
    except _LeftOutError as left_out:
        # The kernels can be used without the plugin.
        plugin, remedy = f"not built: {left_out.reason}", left_out.remedy
    return Note("built", plugin, remedy, found["nvcc"], tuple(found["architectures"].split(";")))


def _cmake_version() -> tuple[int, ...]:
    """As (3, 25); empty where there is none that runs."""
    try:
        done = subprocess.run(["cmake", "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return ()
    found = re.search(r"version (\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else ()


def _configure(architectures: str, folder: Path) -> None:
    # --fresh, because the compiler may have changed, or was deleted with pip's build environment. Everything is
    # compiled again. To work on the kernels, call `cmake --build` instead.
    command = ["cmake", "--fresh", "-S", str(ROOT), "-B", str(folder)]
    command.append(f"-DCMAKE_CUDA_ARCHITECTURES={architectures.replace(',', ';').replace(' ', '')}")
    environment = dict(os.environ)
    wheels = _nvcc_of_the_wheels()
    if environment.get("SAMRT_NVCC") == "wheels":
        if wheels is None:
            raise _LeftOutError(
                "SAMRT_NVCC is set to wheels, and nvcc's wheels are not installed",
                f"pip install {' '.join(_NVCC_WHEELS)}",
            )
        environment["CUDACXX"] = str(wheels)
    elif wheels is not None:
        command.append(f"-DSAMRT_NVCC_FALLBACK={wheels.parent}")
    _run("CMake failed", command, environment)


def _nvcc_of_the_wheels() -> Path | None:
    candidates = (Path(folder) / "nvidia" / "cu13" / "bin" / "nvcc" for folder in sys.path)
    return next((path for path in candidates if path.is_file()), None)


def _compile(folder: Path, name: str, target: Path) -> None:
    command = ["cmake", "--build", str(folder), "--target", name]
    if "CMAKE_BUILD_PARALLEL_LEVEL" not in os.environ:
        command += ["--parallel", str(len(os.sched_getaffinity(0)))]
    _run("compiling failed", command, dict(os.environ))
    shutil.copy2(folder / f"lib{name}.so", target)


def _run(failure: str, command: Sequence[str], environment: dict[str, str]) -> None:
    _say(" ".join(command))
    lines = []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr)
            lines.append(line.strip())
    if process.returncode != 0:
        raise _LeftOutError(f"{failure}: {_reason(lines) or f'exit status {process.returncode}'}", _SEE_OUTPUT)


def _reason(lines: Sequence[str]) -> str:
    """The first error in what CMake or a compiler said, in one line."""
    first = next((index for index, line in enumerate(lines) if _ERROR.search(line)), None)
    if first is None:
        return next((line for line in reversed(lines) if line), "")
    if not lines[first].startswith("CMake Error"):
        return lines[first]
    # CMake prints the place first, then the message as a separate paragraph.
    paragraph: list[str] = []
    for line in lines[first + 1 :]:
        if not line and paragraph:
            break
        if line:
            paragraph.append(line)
    return " ".join(paragraph)


def _default_architectures() -> str:
    return "native" if _has_gpu() else "all"


def _has_gpu() -> bool:
    if Path("/etc/nv_tegra_release").exists():  # a Jetson; only newer ones have nvidia-smi, and it reports little
        return True
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and "GPU" in done.stdout


def _say(text: str) -> None:
    print(f"samrt: {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--architectures",
        default=os.environ.get("SAMRT_CUDA_ARCHITECTURES", ""),
        help="native, all, or numbers such as '80;87' (default: this machine's GPUs, or all if there is none)",
    )
    parser.add_argument("--target", type=Path, default=LIBRARIES, help="folder for the libraries (%(default)s)")
    arguments: Any = parser.parse_args()
    try:
        note = build(arguments.target, arguments.architectures)
    except NotBuiltError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0 if note.kernels == "built" else 1


if __name__ == "__main__":
    sys.exit(main())
