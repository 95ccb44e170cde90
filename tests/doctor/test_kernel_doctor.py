"""What `samrt doctor` says of the kernel library and the plugin, with stubs in their place."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from stub_plugin import compile_stub

from samrt.device.gpus import Gpu
from samrt.doctor.findings import Finding
from samrt.doctor.kernels import examine_kernels
from samrt.doctor.runtime import examine, runtime_works
from samrt.kernels import library as kernels
from samrt.kernels.library import KERNELS_VARIABLE, KERNELS_VERSION, PLUGIN_VARIABLE


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of libraries of an installation, empty."""
    for name in (KERNELS_VARIABLE, PLUGIN_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(kernels, "LIBRARY_FOLDER", tmp_path / "lib")
    (tmp_path / "lib").mkdir()
    return tmp_path / "lib"


def _gpu(capability: str) -> Gpu:
    return Gpu(index=0, name="Some GPU", compute_capability=capability, memory=2**33)


def test_is_part_of_the_report_and_optional() -> None:
    found = {finding.name: finding for finding in examine()}
    assert found["CUDA kernels"].status == found["TensorRT plugin"].status == "missing"
    assert runtime_works(list(found.values()))


def test_says_why_there_are_none_and_how_to_get_them(installed: Path) -> None:
    note = {"kernels": "not built: no nvcc", "plugin": "not built: no nvcc", "remedy": "install nvcc"}
    (installed / "build.json").write_text(json.dumps(note))

    assert examine_kernels([]) == [
        Finding("CUDA kernels", "missing", "not built: no nvcc", "install nvcc"),
        Finding("TensorRT plugin", "missing", "not built: no nvcc", "install nvcc"),
    ]


def test_names_version_architectures_and_file(installed: Path, tmp_path: Path) -> None:
    path = compile_stub(tmp_path).rename(installed / "libsamrt_kernels.so")
    expected = Finding("CUDA kernels", "ok", f"version {KERNELS_VERSION}, for 87, 89, 110, {path}")

    assert examine_kernels([])[0] == examine_kernels([_gpu("8.7"), _gpu("11.0")])[0] == expected


def test_a_library_for_other_gpus_is_broken(installed: Path, tmp_path: Path) -> None:
    compile_stub(tmp_path).rename(installed / "libsamrt_plugin.so")
    (installed / "libsamrt_rtx_name.so").touch()
    found = examine_kernels([_gpu("8.7"), _gpu("9.0")])[1]

    assert found.status == "broken"
    assert found.detail.endswith("not for Some GPU (9.0)")
    assert "SAMRT_CUDA_ARCHITECTURES=native" in found.remedy


def test_a_plugin_without_what_tensorrt_rtx_needs_is_broken(installed: Path, tmp_path: Path) -> None:
    compile_stub(tmp_path).rename(installed / "libsamrt_plugin.so")
    found = examine_kernels([])[1]
    assert found.status == "broken"
    assert "libsamrt_rtx_name.so is missing beside it" in found.detail
    (installed / "libsamrt_rtx_name.so").touch()
    assert examine_kernels([])[1].status == "ok"


def test_kernels_in_the_place_of_the_plugin_are_broken(installed: Path, tmp_path: Path) -> None:
    compile_stub(tmp_path, plugin=False).rename(installed / "libsamrt_plugin.so")
    assert "holds kernels and no plugin" in examine_kernels([])[1].detail


@pytest.mark.parametrize("variable", [KERNELS_VARIABLE, PLUGIN_VARIABLE])
def test_a_library_that_a_variable_names_runs_no_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    source = tmp_path / "mark.c"
    source.write_text(
        f'#include <stdio.h>\n__attribute__((constructor)) void f(void) {{ fclose(fopen("{tmp_path}/ran", "w")); }}\n'
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "named.so", source], check=True)
    monkeypatch.setenv(variable, str(tmp_path / "named.so"))
    found = examine_kernels([])[variable == PLUGIN_VARIABLE]
    assert (found.status, "named.so, which" in found.detail) == ("ok", True)
    assert not (tmp_path / "ran").exists()


def test_a_library_of_another_version_is_broken(installed: Path, tmp_path: Path) -> None:
    compile_stub(tmp_path, version=99).rename(installed / "libsamrt_kernels.so")
    found = examine_kernels([])[0]

    assert found.status == "broken"
    assert "version 99" in found.detail


def test_a_named_file_that_is_not_there_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PLUGIN_VARIABLE, str(tmp_path / "absent.so"))
    assert [finding.status for finding in examine_kernels([])] == ["missing", "broken"]
