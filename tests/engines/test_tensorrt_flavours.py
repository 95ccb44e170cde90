"""Which TensorRT is installed, and what is said where it is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from samrt.engines import flavours
from samrt.engines.flavours import FLAVOURS, import_flavour, installed_flavours
from samrt.errors import BackendError


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the head of the path, with neither flavour imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in FLAVOURS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_rtx_is_found_and_imported() -> None:
    pytest.importorskip("tensorrt_rtx")
    flavour = import_flavour("tensorrt_rtx")
    assert flavour.is_rtx
    assert flavour.module.__name__ == "tensorrt_rtx"
    assert installed_flavours()["tensorrt_rtx"] == flavour.version
    assert flavour.title == f"TensorRT-RTX {flavour.version}"


def test_asking_imports_nothing() -> None:
    code = (
        "import sys, samrt.engines.builder.engine; from samrt.engines import flavours\n"
        "flavours.installed_flavours(); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "samrt.engines.builder.engine" in loaded
    assert not {
        "tensorrt",
        "tensorrt_rtx",
        "tensorrt_rtx_bindings",
        "cuda.core",
        "cuda.bindings",
        "torch",
        "onnx",
    } & set(loaded)


def test_the_version_is_known_before_and_after_the_import(fake: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    before = installed_flavours()["tensorrt_rtx"]
    assert before == import_flavour("tensorrt_rtx").version == installed_flavours()["tensorrt_rtx"]


def test_a_missing_flavour_names_the_package(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "tensorrt" not in installed_flavours()
    with pytest.raises(BackendError, match=r"TensorRT is not installed.*pip install tensorrt.*python3-libnvinfer"):
        import_flavour("tensorrt")


def test_a_folder_of_that_name_is_no_flavour(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(fake)])
    (fake / "tensorrt").mkdir()
    assert "tensorrt" not in installed_flavours()


def test_a_broken_flavour_is_installed_but_not_imported(fake: Path) -> None:
    (fake / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object file')")
    assert installed_flavours()["tensorrt"] == "unknown"
    with pytest.raises(BackendError, match=r"cannot be imported: libnvinfer\.so\.10.*pip install tensorrt"):
        import_flavour("tensorrt")


@pytest.mark.parametrize(
    ("version", "accepted"), [("8.6.1", False), ("10.2.0", False), ("10.3.0", True), ("11.4.0", True)]
)
def test_the_oldest_tensorrt(version: str, accepted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tensorrt")
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    if accepted:
        assert not import_flavour("tensorrt").is_rtx
    else:
        with pytest.raises(BackendError, match=f"TensorRT {version} is too old, samrt needs 10.3"):
            import_flavour("tensorrt")


def test_an_unknown_flavour() -> None:
    with pytest.raises(BackendError, match="choose one of tensorrt, tensorrt_rtx"):
        flavours.import_flavour("os")
