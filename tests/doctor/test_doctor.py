"""What `samrt doctor` finds of the runtime and the exporter, on machines simulated by hiding or adding packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from samrt.bundle.default import default_bundle
from samrt.doctor.findings import Finding
from samrt.doctor.runtime import examine, runtime_works


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


def test_the_default_model_is_whole_or_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _find("default model").status == "ok"
    manifest = json.loads((default_bundle() / "manifest.json").read_text())
    shutil.copy(default_bundle() / "manifest.json", tmp_path)
    monkeypatch.setattr("samrt.bundle.default._FOLDER", tmp_path)

    found = _find("default model")
    assert found.status == "broken"
    assert any(file in found.detail for file in manifest["files"])
    assert "install samrt again" in found.remedy
    assert runtime_works(examine()), "with a bundle of one's own"


def test_onnxruntime_without_its_cpu_provider_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider"])
    assert _find("ONNX Runtime").status == "broken"
    assert _find("backend onnxruntime").detail == "cannot run here without ONNX Runtime"
    assert not runtime_works(examine())


def test_export_packages_are_optional_and_looked_up_without_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_installed(monkeypatch, {"torch": "2.99.0+cpu", "onnx": None, "onnxscript": None})
    monkeypatch.delitem(sys.modules, "torch", raising=False)

    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ['torch==2.99.0; extra == "export"', "onnx>=1"])

    assert _find("export: torch") == Finding("export: torch", "ok", "2.99.0+cpu")
    assert _find("export: onnx").status == "missing"
    assert "pip install '.[export]'" in _find("export: onnx").remedy
    assert runtime_works(examine())
    assert "torch" not in sys.modules


def test_another_torch_than_the_export_extra_pins_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_installed(monkeypatch, {"torch": "1.9.0"})
    found = _find("export: torch")
    assert (found.status, found.required) == ("broken", False)
    assert re.fullmatch(r"1\.9\.0, but exporting needs \d+\.\d+\.\d+", found.detail)
    assert "pip install '.[export]'" in found.remedy
    assert runtime_works(examine())
