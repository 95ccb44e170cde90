"""What `samrt doctor` finds of GPUs and Jetsons, on machines simulated by adding libraries and files or hiding them."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from samrt.device.gpus import Gpu
from samrt.doctor import gpu as gpu_doctor
from samrt.doctor import jetson
from samrt.doctor.findings import Finding
from samrt.doctor.runtime import examine, runtime_works
from samrt.engines.flavours import Flavour
from samrt.errors import BackendError


def _find(name: str) -> Finding:
    (found,) = [finding for finding in examine() if finding.name == name]
    return found


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


def _pretend_jetson(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    model, release = folder / "model", folder / "nv_tegra_release"
    model.write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    release.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081\n# more\n")
    for name, path in (("_DEVICE_MODEL", model), ("_JETSON_RELEASE", release)):
        monkeypatch.setattr(jetson, name, path)
    for name in ("_POWER_STATUS", "_POWER_MODES"):
        monkeypatch.setattr(jetson, name, folder / name)


def test_recognises_a_jetson(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _pretend_jetson(monkeypatch, tmp_path)

    assert _find("Jetson").detail == (
        "NVIDIA Jetson Orin Nano Developer Kit, R36 (release), REVISION: 4.3, GCID: 38968081"
    )


def test_says_nothing_of_jetson_on_another_board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"Raspberry Pi 5 Model B\0")
    monkeypatch.setattr(jetson, "_DEVICE_MODEL", model)
    monkeypatch.setattr(jetson, "_JETSON_RELEASE", tmp_path / "absent")

    assert not [finding for finding in examine() if finding.name in ("Jetson", "power mode")]


POWER_MODES = """\
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online

< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
CPU_ONLINE CORE_0 1
< PM_CONFIG DEFAULT=0 >
"""


def test_reads_the_power_mode_from_nvpmodels_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _pretend_jetson(monkeypatch, tmp_path)
    (tmp_path / "_POWER_STATUS").write_text("pmode:0002 fmode:quiet\n")
    (tmp_path / "_POWER_MODES").write_text(POWER_MODES)

    assert _find("power mode").detail == "MAXN_SUPER (2), of 15W (0), MAXN_SUPER (2)"


@pytest.mark.parametrize(
    ("script", "status", "text"),
    [
        ("echo 'NV Power Mode: 25W'; echo 1", "ok", "25W"),
        ("echo 'NVPM ERROR: no permission' >&2; exit 255", "missing", "cannot be read"),
        ("sleep 30", "missing", "cannot be read"),
        (None, "missing", "cannot be read"),
    ],
)
def test_asks_nvpmodel_where_its_files_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str | None, status: str, text: str
) -> None:
    _pretend_jetson(monkeypatch, tmp_path)
    monkeypatch.setattr(jetson, "_POWER_TIMEOUT", 0.5)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if script is not None:
        command = tmp_path / "nvpmodel"
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
    found = _find("power mode")

    assert (found.status, found.detail) == (status, text)
    assert runtime_works(examine())


ORIN = Gpu(0, "Orin", "8.7", 8 * 2**30)


def _pretend_gpu_machine(
    monkeypatch: pytest.MonkeyPatch,
    gpus: list[Gpu],
    flavours: dict[str, str],
    packages: dict[str, str | None] | None = None,
    supported: int = 12060,
) -> None:
    """A driver for CUDA 12.6, GPUs, TensorRT flavours at a version (that starting with "!" fails to import)."""
    monkeypatch.setattr(ctypes, "CDLL", _fake_cuda(supported, 0))
    monkeypatch.setattr("samrt.device.gpus.find_gpus", lambda: gpus)
    monkeypatch.setattr(gpu_doctor, "installed_flavours", lambda: flavours)
    versions = {"cuda-core": "1.2.2", "cuda-bindings": "12.9.10", **(packages or {})}

    def import_flavour(name: str) -> Flavour:
        if flavours[name].startswith("!"):
            raise BackendError(flavours[name])
        return Flavour(name, None, flavours[name])

    def version_of(module: str, package: str = "") -> str | None:
        return versions.get(package, "1.0")

    monkeypatch.setattr(gpu_doctor, "import_flavour", import_flavour)
    monkeypatch.setattr(gpu_doctor, "version_of", version_of)
    monkeypatch.setitem(sys.modules, "cuda.core", SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace())  # type: ignore[arg-type]


def test_a_jetson_with_everything_runs_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _pretend_jetson(monkeypatch, tmp_path)
    _pretend_gpu_machine(monkeypatch, [ORIN], {"tensorrt": "10.3.0"})

    assert _find("GPU 0").detail == "Orin, compute capability 8.7, 8.0 GiB"
    assert _find("cuda-core") == Finding("cuda-core", "ok", "1.2.2, cuda-bindings 12.9.10")
    assert _find("TensorRT") == Finding("TensorRT", "ok", "10.3.0")
    assert _find("backend tensorrt") == Finding("backend tensorrt", "ok", "on Orin")
    assert _find("backend onnxruntime").status == "ok"
    # Its wheels have nothing for this GPU, so none is recommended.
    assert _find("TensorRT-RTX") == Finding("TensorRT-RTX", "missing", "not installed")
    assert _find("backend tensorrt_rtx").detail == "cannot run here without TensorRT-RTX"


def test_says_what_each_backend_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_gpu_machine(monkeypatch, [], {"tensorrt": "!libnvinfer.so.10 is missing", "tensorrt_rtx": "1.7.1"})
    monkeypatch.setattr(jetson, "_DEVICE_MODEL", Path("absent"))

    assert _find("GPU").status == "broken"
    assert _find("TensorRT") == Finding("TensorRT", "broken", "!libnvinfer.so.10 is missing")
    assert _find("backend tensorrt").detail == "cannot run here without TensorRT"
    rtx = _find("backend tensorrt_rtx")
    assert rtx.detail.startswith("cannot run here without a GPU; its engines can be built here")
    assert runtime_works(examine()), "the GPU backends are optional"


@pytest.mark.parametrize(
    ("packages", "status", "text"),
    [
        ({"cuda-core": None}, "missing", "no cuda-core"),
        ({"cuda-bindings": None}, "missing", "no cuda-bindings"),
        ({"cuda-bindings": "13.5.0"}, "broken", "are for CUDA 13"),
    ],
)
def test_names_the_extra_that_fits_the_driver(
    monkeypatch: pytest.MonkeyPatch, packages: dict[str, str | None], status: str, text: str
) -> None:
    _pretend_gpu_machine(monkeypatch, [ORIN], {"tensorrt": "10.3.0"}, packages)
    found = _find("cuda-core")

    assert (found.status, found.remedy) == (status, "in a checkout of samrt: pip install '.[cu12]'")
    assert text in found.detail
    assert _find("backend tensorrt").detail == "cannot run here without cuda-core"


def test_a_driver_for_cuda_11_is_too_old_whatever_the_bindings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(jetson, "_DEVICE_MODEL", Path("absent"))
    monkeypatch.setattr(jetson, "_JETSON_RELEASE", Path("absent"))
    for bindings in ("13.5.0", None):
        _pretend_gpu_machine(monkeypatch, [ORIN], {"tensorrt": "10.3.0"}, {"cuda-bindings": bindings}, supported=11040)
        driver = _find("NVIDIA driver")
        assert (driver.status, driver.detail) == ("broken", "supports CUDA 11.4; samrt needs CUDA 12 or newer")
        assert driver.remedy == "upgrade it to one for CUDA 12 or newer"
        assert (_find("cuda-core").status, _find("cuda-core").remedy) == ("missing", "")
        assert _find("backend tensorrt").detail == "cannot run here without NVIDIA driver, cuda-core"
    assert runtime_works(examine()), "the driver is optional"

    _pretend_jetson(monkeypatch, tmp_path)
    assert "JetPack" in _find("NVIDIA driver").remedy


def test_a_missing_flavour_is_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _pretend_gpu_machine(monkeypatch, [ORIN], {})
    monkeypatch.setattr(jetson, "_DEVICE_MODEL", Path("absent"))
    monkeypatch.setattr(jetson, "_JETSON_RELEASE", Path("absent"))
    assert _find("TensorRT").remedy == "pip install tensorrt"
    assert _find("TensorRT-RTX").remedy == "in a checkout of samrt: pip install '.[rtx]'"

    _pretend_jetson(monkeypatch, tmp_path)
    assert "python3-libnvinfer" in _find("TensorRT").remedy


def test_works_without_numpy_which_the_gpu_search_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "samrt.device.gpus", None)
    assert not [finding for finding in examine() if re.fullmatch(r"GPU \d", finding.name)]
