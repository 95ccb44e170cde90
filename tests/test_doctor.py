"""What `samrt doctor` finds on machines simulated by adding packages, libraries and files or hiding them."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from samrt import doctor
from samrt.doctor import Finding, examine, runtime_works


def _find(name: str) -> Finding:
    (found,) = [finding for finding in examine() if finding.name == name]
    return found


def _pretend_installed(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None]) -> None:
    """Make the packages named look installed at a version, or absent for None."""
    find_spec, version = importlib.util.find_spec, importlib.metadata.version

    def fake_find_spec(name: str, package: str | None = None) -> object:
        return versions[name] and object() if name in versions else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", fake_find_spec)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name) or version(name))


def test_finds_the_runtime_working_with_the_versions_that_are_imported() -> None:
    assert runtime_works(examine())
    assert _find("numpy") == Finding("numpy", "ok", np.__version__, required=True)
    assert _find("ONNX Runtime").detail.startswith(onnxruntime.__version__)
    assert "CPUExecutionProvider" in _find("ONNX Runtime").detail


@pytest.mark.parametrize(
    ("module", "name", "remedy"),
    [
        ("cv2", "OpenCV", "opencv-python-headless"),
        ("PIL", "Pillow", "pillow"),
        ("onnxruntime", "ONNX Runtime", "onnxr"),
    ],
)
def test_a_needed_package_that_does_not_load_breaks_the_runtime(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, remedy: str
) -> None:
    # None in sys.modules makes the import fail.
    monkeypatch.setitem(sys.modules, module, None)
    found = _find(name)

    assert found.status == "broken"
    assert found.detail.startswith("ModuleNotFoundError")
    assert remedy in found.remedy
    assert not runtime_works(examine())


def test_onnxruntime_without_its_cpu_provider_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider"])
    assert _find("ONNX Runtime").status == "broken"
    assert not runtime_works(examine())


def test_export_packages_are_optional_and_looked_up_without_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_installed(monkeypatch, {"torch": "2.99.0+cpu", "onnx": None, "onnxscript": None})
    monkeypatch.delitem(sys.modules, "torch", raising=False)

    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ['torch==2.99.0; extra == "export"', "onnx>=1"])

    assert _find("export: torch") == Finding("export: torch", "ok", "2.99.0+cpu")
    assert _find("export: onnx").status == "missing"
    assert "samrt[export]" in _find("export: onnx").remedy
    assert runtime_works(examine())
    assert "torch" not in sys.modules


@pytest.mark.parametrize(
    "versions", [{"tensorrt": "10.3.0", "tensorrt_rtx": None}, {"tensorrt": None, "tensorrt_rtx": None}]
)
def test_says_that_there_is_no_tensorrt_backend(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None]
) -> None:
    _pretend_installed(monkeypatch, versions)
    found = _find("TensorRT")

    assert "no TensorRT backend" in found.detail
    assert ("tensorrt 10.3.0" in found.detail) == (versions["tensorrt"] is not None)
    assert not found.remedy


def _fake_cuda(version: int, code: int) -> Callable[[str], Any]:
    def answer(pointer: Any) -> int:
        pointer._obj.value = version
        return code

    return lambda name: SimpleNamespace(cuDriverGetVersion=answer)


@pytest.mark.parametrize(
    ("version", "code", "status", "text"),
    [
        (12080, 0, "ok", "CUDA 12.8"),
        (13010, 0, "ok", "CUDA 13.1"),
        (0, 0, "broken", "answers 0"),
        (0, 34, "broken", "34"),
    ],
)
def test_reads_the_drivers_version(
    monkeypatch: pytest.MonkeyPatch, version: int, code: int, status: str, text: str
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", _fake_cuda(version, code))
    found = _find("NVIDIA driver")

    assert found.status == status
    assert text in found.detail
    assert runtime_works(examine()), "the driver is optional"


def test_a_machine_without_a_driver_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert _find("NVIDIA driver").status == "missing"


def test_recognises_a_jetson(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, release = tmp_path / "model", tmp_path / "nv_tegra_release"
    model.write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    release.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081\n# more\n")
    monkeypatch.setattr(doctor, "_DEVICE_MODEL", model)
    monkeypatch.setattr(doctor, "_JETSON_RELEASE", release)

    assert _find("Jetson").detail == (
        "NVIDIA Jetson Orin Nano Developer Kit, R36 (release), REVISION: 4.3, GCID: 38968081"
    )


def test_says_nothing_of_jetson_on_another_board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"Raspberry Pi 5 Model B\0")
    monkeypatch.setattr(doctor, "_DEVICE_MODEL", model)
    monkeypatch.setattr(doctor, "_JETSON_RELEASE", tmp_path / "absent")

    assert not [finding for finding in examine() if finding.name == "Jetson"]


def test_another_torch_than_the_export_extra_pins_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_installed(monkeypatch, {"torch": "1.9.0"})
    found = _find("export: torch")
    assert (found.status, found.required) == ("broken", False)
    assert re.fullmatch(r"1\.9\.0, but exporting needs \d+\.\d+\.\d+", found.detail)
    assert "samrt[export]" in found.remedy
    assert runtime_works(examine())
