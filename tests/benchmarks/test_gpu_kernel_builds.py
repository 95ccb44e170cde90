"""Which library of kernels `benchmarks/gpu` takes on a device: compiled there, named, or compiled before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kernel_build
import pytest
from phases import kernels_build
from work import NotHereError, Work


class _Device:
    def describe(self) -> dict[str, str]:
        return {"compute_capability": "9.0"}


@pytest.fixture
def building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A run of the phase kernels_build on a device of 9.0, without a compiler, where any file is a library."""

    def load(path: Path) -> Any:
        runs_on = "80" if path.name == "other.so" else "9.0"
        return SimpleNamespace(path=path, architectures=("90",), attention_tiles=lambda: ("a",), runs_on=runs_on.__eq__)

    def build(*_: Any) -> Path:
        raise kernel_build.NoCompilerError("there is no cmake")

    monkeypatch.delenv("SAMRT_KERNELS_LIBRARY", raising=False)
    monkeypatch.setattr(kernels_build, "load_kernels", load)
    monkeypatch.setattr(kernels_build, "Driver", _Device)
    monkeypatch.setattr(kernels_build, "build", build)
    monkeypatch.setattr(kernels_build, "LIBRARY_FOLDER", tmp_path / "lib")
    return Work(tmp_path, "kernels_build", smoke=False, deadline=0)


def test_without_a_compiler_it_takes_the_library_in_the_checkout(building: Work, tmp_path: Path) -> None:
    with pytest.raises(NotHereError, match="there is no cmake"):
        kernels_build.run(building)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libsamrt_kernels.so").write_bytes(b"library")
    kernels_build.run(building)
    found = building.of("kernels_build")["library"]

    assert (found["bytes"], found["architectures"]) == (7, ["90"])
    assert found["origin"] == "compiled elsewhere, before this run"
    assert found["instead of"] == {"compiled from this checkout": "there is no cmake"}


def test_with_a_compiler_it_compiles_for_the_device(
    building: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libsamrt_kernels.so").write_bytes(b"an old one")
    asked = []

    def build(folder: Path, architecture: str, seconds: float) -> Path:
        asked.append(architecture)
        (tmp_path / "fresh.so").write_bytes(b"fresh")
        return tmp_path / "fresh.so"

    monkeypatch.setattr(kernels_build, "build", build)
    kernels_build.run(building)
    found = building.of("kernels_build")["library"]

    assert asked == ["90"]
    assert (found["path"], found["origin"]) == (str(tmp_path / "fresh.so"), "compiled from this checkout")


@pytest.mark.parametrize("ninja", [True, False])
def test_ninja_builds_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ninja: bool) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(kernel_build, "_call", lambda command, seconds: commands.append(command))
    monkeypatch.setattr(
        kernel_build.shutil, "which", lambda name, path: f"/x/{name}" if ninja or name != "ninja" else None
    )
    (tmp_path / "samrt_build.json").write_text('{"kernels_skipped": ""}')
    kernel_build.build(tmp_path, "90", 1)

    assert ("-G" in commands[0], "-DCMAKE_MAKE_PROGRAM=/x/ninja" in commands[0]) == (ninja, ninja)


@pytest.mark.parametrize("prebuilt", [True, False])
def test_a_failed_compilation_leaves_what_was_built_before_and_says_so(
    building: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prebuilt: bool
) -> None:
    def build(*_: Any) -> Path:
        raise RuntimeError("cmake --build ended with 1")

    monkeypatch.setattr(kernels_build, "build", build)
    monkeypatch.setenv("SAMRT_KERNELS_LIBRARY", str(tmp_path / "other.so"))
    if not prebuilt:
        with pytest.raises(RuntimeError, match=r"other.so is compiled for 90, but this device is 9.0; .*ended with 1"):
            kernels_build.run(building)
        assert building.of("kernels_build") == {}
        return
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libsamrt_kernels.so").write_bytes(b"an old one")
    kernels_build.run(building)
    found = building.of("kernels_build")["library"]

    assert (found["origin"], found["bytes"]) == ("compiled elsewhere, before this run", 10)
    assert list(found["instead of"]) == ["named by SAMRT_KERNELS_LIBRARY", "compiled from this checkout"]
    assert "ended with 1" in found["instead of"]["compiled from this checkout"]


def test_a_library_that_is_named_is_taken(building: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named.so").write_bytes(b"named")
    monkeypatch.setenv("SAMRT_KERNELS_LIBRARY", str(tmp_path / "named.so"))
    kernels_build.run(building)

    assert building.of("kernels_build")["library"]["origin"] == "named by SAMRT_KERNELS_LIBRARY"
