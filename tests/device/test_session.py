"""GPUs, sessions and their memory: without a driver, and on one whose device memory is host memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hostcuda import outside
from hostcuda.outside import expect_passed, names

import samrt.device.gpus
from samrt.device.driver import check
from samrt.device.gpus import find_gpus
from samrt.device.session import DeviceOptions, DeviceSession
from samrt.errors import BackendError


def _without_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a GPU, wherever this runs."""

    class Driver:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError('"cuda" is an NVIDIA driver library')

    monkeypatch.setattr(samrt.device.gpus, "load_driver", Driver)
    monkeypatch.setattr(samrt.device.gpus, "load_core", lambda: None)


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_driver(monkeypatch)
    assert find_gpus() == []


def test_a_session_without_a_driver_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_driver(monkeypatch)
    with pytest.raises(BackendError, match="install an NVIDIA driver, or load with backend='onnxruntime'"):
        DeviceSession()


def test_without_the_bindings_there_is_no_gpu_and_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda", "cuda.core", "cuda.bindings", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    assert find_gpus() == []
    with pytest.raises(BackendError, match=r"pip install 'cuda-core\[cu13\]'"):
        DeviceSession(DeviceOptions())


def test_importing_it_imports_no_bindings() -> None:
    code = (
        "import sys, samrt.device.session, samrt.device.array\n"
        "sys.exit(bool({'cuda.core', 'cuda.bindings'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("CUDA_ERROR_OUT_OF_MEMORY", "close other models"),
        ("CUDA_ERROR_NO_DEVICE", "CUDA_VISIBLE_DEVICES"),
        ("CUDA_ERROR_INSUFFICIENT_DRIVER", "update the NVIDIA driver"),
        ("CUDA_ERROR_ILLEGAL_ADDRESS", "restart this process"),
    ],
)
def test_errors_name_a_remedy(name: str, remedy: str) -> None:
    class Result(int):
        pass

    result = Result(1)
    result.name = name  # type: ignore[attr-defined]
    with pytest.raises(BackendError, match=f"a copy failed with {name}; .*{remedy}"):
        check((result, None), "a copy")


def test_a_check_that_was_skipped_or_hung_has_not_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.core")
    (tmp_path / "check.py").write_text(
        "import pytest\n"
        "def test_passes(): pass\n"
        "def test_fails(): assert 'this' == 'that'\n"
        "@pytest.mark.parametrize('n', [0, 1])\n"
        "def test_skips(n):\n"
        "    if n: pytest.skip('none here')\n"
    )
    monkeypatch.setattr(outside, "_FOLDER", tmp_path)
    monkeypatch.setattr(outside, "_driver", lambda: tmp_path)
    expect_passed("check.py", "test_passes")
    with pytest.raises(pytest.skip.Exception, match="none here"):
        expect_passed("check.py", "test_skips")
    for name, message in (("test_fails", "that"), ("test_absent", "did not run")):
        with pytest.raises(pytest.fail.Exception, match=message):
            expect_passed("check.py", name)
    runs = []

    def hang(command: list[str], **_: object) -> None:
        runs.append(command)
        raise subprocess.TimeoutExpired(command, 300, b"it hangs")

    monkeypatch.setattr(outside.subprocess, "run", hang)
    for _ in range(2):
        with pytest.raises(pytest.fail.Exception, match=r"timed out after 300 seconds\nit hangs"):
            expect_passed("other.py", "test_passes")
    assert len(runs) == 1


@pytest.mark.parametrize("name", names("check_session.py"))
def test_on_host_memory(name: str) -> None:
    expect_passed("check_session.py", name)
