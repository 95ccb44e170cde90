"""What `pip install .` does about the kernels: what is installed, said and noted, and when it fails.

A stand-in takes CMake's place; the real one is in test_kernels_cmake.py and test_kernels_build.py.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from kernel_builds import ROOT

# Writes down its arguments; configures to what $SAID holds; makes empty libraries, unless $BROKEN names the target.
_CMAKE = """\
#!/bin/sh
if [ "$1" = --version ]; then echo "cmake version ${CMAKE_VERSION:-3.24.0}"; exit 0; fi
echo "CUDACXX=$CUDACXX $*" >> "$CALLS"
previous=
for argument in "$@"; do
  case "$previous" in
    -B|--build) folder=$argument ;;
    --target) target=$argument ;;
  esac
  previous=$argument
done
if [ -n "$target" ]; then
  case "$BROKEN" in
    *"$target"*) echo "[  3%] Building CXX object common/error.cpp.o"; echo "x.cu(7): error: expected a ;"; exit 2 ;;
  esac
  if [ -n "$LIBRARIES" ]; then cp "$LIBRARIES/lib$target.so" "$folder"; else echo library > "$folder/lib$target.so"; fi
elif [ "$BROKEN" = configure ]; then
  printf 'CMake Error at a.cmake:3 (message):\\n  samrt: no GPU was found\\n  here\\n\\nCall Stack\\n'
  exit 1
else
  mkdir -p "$folder"
  echo "$SAID" > "$folder/samrt_build.json"
fi
"""
BOTH = {"nvcc": "13.0.88", "architectures": "87;110", "kernels_skipped": ""}
NO_NVCC = {"nvcc": "", "architectures": "", "kernels_skipped": "no nvcc"}
LIBRARIES = {"libsamrt_kernels.so", "libsamrt_plugin.so", "libsamrt_rtx_name.so"}

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernels support Linux only")


class Machine:
    """A checkout of what an installation needs, and a PATH with the stand-in for CMake."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.checkout = folder / "checkout"
        self.calls = folder / "calls"
        self.tools = folder / "tools"
        self.libraries = self.checkout / "samrt" / "lib"
        for name in ("samrt", "export", "kernels", "cmake"):
            ignored = shutil.ignore_patterns("__pycache__", "lib", "*.onnx", "*.weights")
            shutil.copytree(ROOT / name, self.checkout / name, ignore=ignored)
        for name in ("setup.py", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "NOTICE", "MANIFEST.in"):
            shutil.copy(ROOT / name, self.checkout)
        self.tools.mkdir()
        for name in ("sh", "mkdir", "echo", "cp"):
            (self.tools / name).symlink_to(str(shutil.which(name)))
        self.tool("cmake", _CMAKE)
        self.environment = {"PATH": str(self.tools), "CALLS": str(self.calls), "HOME": str(folder)}

    def tool(self, name: str, script: str) -> None:
        (self.tools / name).write_text(script)
        (self.tools / name).chmod(0o755)

    def python(
        self, arguments: Sequence[str], said: dict[str, str], **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.checkout,
            env={**self.environment, "SAID": json.dumps(said), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def build(self, said: dict[str, str], *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.python(["kernels/build.py", *arguments], said, **environment)

    def note(self) -> dict[str, Any]:
        return dict(json.loads((self.libraries / "build.json").read_text()))

    def installed(self) -> set[str]:
        return {path.name for path in self.libraries.glob("*.so")}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_builds_both_and_notes_it(machine: Machine) -> None:
    done = machine.build(BOTH)

    assert done.returncode == 0, done.stderr
    assert machine.installed() == LIBRARIES
    assert machine.note() == {
        "kernels": "built",
        "plugin": "built",
        "remedy": "",
        "nvcc": "13.0.88",
        "architectures": ["87", "110"],
    }
    assert "samrt: CUDA kernels: built; TensorRT plugin: built" in done.stderr


def test_without_nvcc_neither_and_it_says_so(machine: Machine) -> None:
    done = machine.build(NO_NVCC)

    assert machine.installed() == set()
    assert machine.note()["kernels"] == machine.note()["plugin"] == "not built: no nvcc"
    assert "SAMRT_NVCC=wheels" in machine.note()["remedy"]
    assert "samrt: CUDA kernels: not built: no nvcc" in done.stderr
    assert "samrt: to get what is missing: " in done.stderr


def test_without_cmake(machine: Machine) -> None:
    (machine.tools / "cmake").unlink()
    machine.build(BOTH)
    assert machine.note()["kernels"] == "not built: they need CMake 3.24 or newer, and CMake is not installed"


def test_with_the_cmake_of_jetpack_6(machine: Machine) -> None:
    machine.build(BOTH, CMAKE_VERSION="3.22.1")
    assert machine.note()["kernels"] == "not built: they need CMake 3.24 or newer, and CMake 3.22 is installed"
    assert machine.note()["remedy"].startswith("install CMake 3.24 or newer")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("configure", "CMake failed: samrt: no GPU was found here"),
        ("samrt_kernels", "compiling failed: x.cu(7): error: expected a ;"),
    ],
)
def test_what_fails_is_noted_with_its_first_error(machine: Machine, broken: str, reason: str) -> None:
    machine.build(BOTH, BROKEN=broken)
    assert machine.installed() == set()
    assert machine.note()["kernels"] == machine.note()["plugin"] == f"not built: {reason}"


def test_a_plugin_that_fails_leaves_the_kernels(machine: Machine) -> None:
    machine.build(BOTH, BROKEN="samrt_plugin")
    assert "libsamrt_kernels.so" in machine.installed()
    assert "libsamrt_plugin.so" not in machine.installed()
    assert machine.note()["plugin"] == "not built: compiling failed: x.cu(7): error: expected a ;"


@pytest.mark.parametrize(
    "asked", [{"SAMRT_CUDA_ARCHITECTURES": "87"}, {"SAMRT_CUDA_ARCHITECTURES": "all"}, {"SAMRT_NVCC": "wheels"}]
)
def test_what_was_asked_for_and_cannot_be_is_an_error(machine: Machine, asked: dict[str, str]) -> None:
    done = machine.build(NO_NVCC, **asked)
    assert done.returncode == 1
    assert "error: the CUDA kernels could not be built: " in done.stderr
    assert not (machine.libraries / "build.json").exists()


def test_earlier_libraries_do_not_outlive_a_build_without(machine: Machine) -> None:
    machine.build(BOTH)
    machine.build(NO_NVCC)
    assert machine.installed() == set()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "all"),
        ({"SAMRT_CUDA_ARCHITECTURES": "native"}, "native"),
        ({"SAMRT_CUDA_ARCHITECTURES": "80, 87"}, "80;87"),
    ],
)
def test_passes_the_architectures_on(machine: Machine, given: dict[str, str], expected: str) -> None:
    if Path("/etc/nv_tegra_release").exists():
        pytest.skip("this is a Jetson, which compiles for itself")
    machine.build(BOTH, **given)
    assert f"-DCMAKE_CUDA_ARCHITECTURES={expected}" in machine.calls.read_text().split("\n")[0].split()


def test_compiles_for_the_gpu_that_is_here(machine: Machine) -> None:
    machine.tool("nvidia-smi", '#!/bin/sh\necho "GPU 0: NVIDIA Something (UUID: GPU-1)"\n')
    machine.build(BOTH)
    assert "-DCMAKE_CUDA_ARCHITECTURES=native" in machine.calls.read_text()


def test_takes_the_nvcc_of_the_wheels_when_asked_to(machine: Machine, tmp_path: Path) -> None:
    nvcc = tmp_path / "site" / "nvidia" / "cu13" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.touch()
    machine.build(BOTH, PYTHONPATH=str(tmp_path / "site"))
    assert f"-DSAMRT_NVCC_FALLBACK={nvcc.parent}" in machine.calls.read_text(), "the machine's own comes first"

    machine.calls.unlink()
    machine.build(BOTH, PYTHONPATH=str(tmp_path / "site"), SAMRT_NVCC="wheels")
    assert machine.calls.read_text().startswith(f"CUDACXX={nvcc} ")


def make_wheel(machine: Machine, said: dict[str, str], **environment: str) -> Path:
    # As pip calls the backend, but in this environment: pip would fetch one of its own.
    code = "import setuptools.build_meta as backend; print(backend.build_wheel('wheels'))"
    done = machine.python(["-c", code], said, PYTHONPATH=str(machine.checkout), **environment)
    assert done.returncode == 0, done.stderr
    return machine.checkout / "wheels" / done.stdout.splitlines()[-1]


def _about_kernels(wheel: Path) -> dict[str, str]:
    """The text of the files in it that are about the kernels."""
    with zipfile.ZipFile(wheel) as archive:
        about = [path for path in archive.namelist() if path.startswith("samrt/lib/") or path.endswith("/WHEEL")]
        return {path: archive.read(path).decode() for path in about}


def test_a_wheel_holds_the_default_model(machine: Machine) -> None:
    _needs_setuptools()
    model = Path("samrt", "default.samrt")
    names = {str(model / path.name) for path in (ROOT / model).iterdir() if path.is_file()}
    for name in names:
        (machine.checkout / name).touch()  # the tests do without the weights
    with zipfile.ZipFile(make_wheel(machine, BOTH)) as archive:
        assert {name for name in archive.namelist() if name.startswith(f"{model}/")} == names
    assert f"{model}/manifest.json" in names


def test_a_wheel_with_libraries_is_for_this_platform_and_any_python(machine: Machine) -> None:
    _needs_setuptools()
    wheel = make_wheel(machine, BOTH)
    files = _about_kernels(wheel)

    assert wheel.name.startswith("samrt-")
    assert "-py3-none-linux_" in wheel.name
    assert {f"samrt/lib/{name}" for name in LIBRARIES | {"build.json"}} <= set(files)
    assert "Root-Is-Purelib: false" in "".join(text for path, text in files.items() if path.endswith("/WHEEL"))


def test_a_wheel_without_is_for_any_platform_and_has_the_note(machine: Machine) -> None:
    _needs_setuptools()
    # What an editable installation left in the checkout is not this wheel's.
    machine.libraries.mkdir()
    (machine.libraries / "libsamrt_kernels.so").touch()
    wheel = make_wheel(machine, BOTH, SAMRT_CUDA_ARCHITECTURES="none")
    files = _about_kernels(wheel)

    assert "-py3-none-any" in wheel.name
    assert [path for path in files if path.startswith("samrt/lib/")] == ["samrt/lib/build.json"]
    assert json.loads(files["samrt/lib/build.json"])["kernels"] == "not built: SAMRT_CUDA_ARCHITECTURES was set to none"
    assert not machine.calls.exists(), "CMake was not called"


def test_an_editable_installation_puts_them_into_the_checkout(machine: Machine) -> None:
    _needs_setuptools()
    code = "import setuptools.build_meta as backend; backend.build_editable('wheels')"
    for said, environment in ((BOTH, {}), (NO_NVCC, {"SAMRT_CUDA_ARCHITECTURES": "none"})):
        done = machine.python(["-c", code], said, PYTHONPATH=str(machine.checkout), **environment)
        assert done.returncode == 0, done.stderr
        # "none" leaves alone what is there: another environment of the same checkout may use it.
        assert machine.installed() == LIBRARIES


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, []),
        ({"SAMRT_NVCC": "wheels"}, ["nvidia-cuda-nvcc==13.*", "nvidia-cuda-cccl==13.*"]),
        ({"CUDACXX": "/some/nvcc"}, []),
        ({"CUDACXX": "/some/nvcc", "CMAKE_VERSION": "3.22.1"}, ["cmake>=3.24"]),
        ({"CUDACXX": "/some/nvcc", "CMAKE_VERSION": "3.22.1", "SAMRT_CUDA_ARCHITECTURES": "none"}, []),
    ],
)
def test_pip_fetches_what_is_missing_for_the_build(
    machine: Machine, environment: dict[str, str], wanted: list[str]
) -> None:
    _needs_setuptools()
    code = "import setuptools.build_meta as backend; print(backend.get_requires_for_build_wheel())"
    done = machine.python(["-c", code], BOTH, PYTHONPATH=str(machine.checkout), **environment)

    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout.splitlines()[-1]) == wanted


def _needs_setuptools() -> None:
    code = "import setuptools; print(int(setuptools.__version__.split('.')[0]) >= 77)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    if done.stdout.strip() != "True":
        pytest.skip("setuptools 77 or newer is not installed here: pip brings its own to builds")
