"""What `make wheel` refuses to call a wheel, and what it says where it cannot compile for ARM. It makes none here."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from kernel_builds import ROOT

LIBRARIES = ("libsamrt_kernels.so", "libsamrt_plugin.so", "libsamrt_rtx_name.so")
NAME = "samrt-0.1.0-py3-none-manylinux_2_34_x86_64.whl"
NOTE = {"kernels": "built", "plugin": "built", "nvcc": "13.0.88", "architectures": ["86", "89"]}
_CHECK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import wheel
try:
    wheel.check(Path(sys.argv[2]), "x86_64")
except wheel.WheelError as error:
    sys.exit(f"refused: {error}")
"""


def checked(
    folder: Path, name: str = NAME, without: str = "", note: dict[str, object] | None = None, extra: str = ""
) -> str:
    """What is printed of a wheel with these files; each library holds its name."""
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for library in LIBRARIES:
            if library != without:
                archive.writestr(f"samrt/lib/{library}", library)
        archive.writestr("samrt/lib/build.json", json.dumps({**NOTE, **(note or {})}))
        if extra:
            archive.writestr(extra, "")
    command = [sys.executable, "-c", _CHECK, str(ROOT / "kernels"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_a_whole_wheel_is_described(tmp_path: Path) -> None:
    assert checked(tmp_path) == f"{NAME}: 0 MB, nvcc 13.0.88, 86, 89\n"


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_library_has_to_be_there(tmp_path: Path, library: str) -> None:
    assert checked(tmp_path, without=library) == f"refused: {NAME} lacks {library}\n"


def test_what_was_not_built_is_said(tmp_path: Path) -> None:
    assert "plugin not built: no nvcc" in checked(tmp_path, note={"plugin": "not built: no nvcc"})


@pytest.mark.parametrize(
    "name", ["samrt-0.1.0-py3-none-linux_x86_64.whl", "samrt-0.1.0-py3-none-manylinux_2_34_aarch64.whl"]
)
def test_the_name_says_which_machines(tmp_path: Path, name: str) -> None:
    assert "refused: " in checked(tmp_path, name)


def test_other_peoples_libraries_are_not_carried(tmp_path: Path) -> None:
    assert "libstdc++-1.so" in checked(tmp_path, extra="samrt.libs/libstdc++-1.so")


def test_without_a_compiler_for_arm(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "kernels" / "wheel.py"), "--processor", "aarch64", "-o", str(tmp_path)]
    done = subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no aarch64-linux-gnu-g++: ")
    assert not list(tmp_path.iterdir())
