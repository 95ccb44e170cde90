"""ONNX Runtime's telemetry is off: no file of its own, no thread of its own, and no socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

pytest_plugins = ("toy_fixtures",)

VARIABLE = "ORT_DISABLE_TELEMETRY"
# With telemetry on, ONNX Runtime 1.32 looked hosts up some five seconds after a model was loaded.
WAIT = 12
SCRIPT = """
import os, sys, time, numpy, samrt
model = samrt.load(sys.argv[1], threads=1)
model.predict(model.encode(numpy.zeros((9, 9), numpy.uint8)), [[4, 4]], [1])
print(len(os.listdir("/proc/self/task")), os.environ["ORT_DISABLE_TELEMETRY"])
time.sleep(float(sys.argv[2]))
"""
DOCTOR = "import sys, samrt.cli; sys.argv = ['samrt', 'doctor']; samrt.cli.main()"


def run(home: Path, code: str, *arguments: str, telemetry: str | None = None) -> tuple[str, list[str], str]:
    """What a fresh process without a network prints, the files it leaves, and its calls for sockets."""
    for tool in ("unshare", "strace"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    without_network = ["unshare", "--user", "--map-root-user", "--net"]
    trace = home / "trace"
    traced = ["strace", "-f", "-qq", "-e", "trace=%network", "-e", "signal=none", "-o", str(trace)]
    if subprocess.run([*without_network, *traced, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system allows no network namespace, or no tracing, to this user")
    # Where CI is set, ONNX Runtime has no telemetry anyhow.
    environment = {name: value for name, value in os.environ.items() if name not in (VARIABLE, "CI")}
    folders = {name: str(home / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    for folder in folders.values():
        Path(folder).mkdir()
    environment |= folders | ({VARIABLE: telemetry} if telemetry else {})
    environment |= {"OPENBLAS_NUM_THREADS": "1"}
    command = [*without_network, *traced, sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    files = [str(path) for name in folders for path in (home / name).rglob("*") if path.is_file()]
    return result.stdout, files, trace.read_text()


@pytest.fixture(scope="module")
def waited(tmp_path_factory: pytest.TempPathFactory, toy_bundle: Path) -> Iterator[Future[tuple[str, list[str], str]]]:
    """`run` with a model that is loaded and used, and time for look-ups, in which the other tests run."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run, tmp_path_factory.mktemp("waited"), SCRIPT, str(toy_bundle), str(WAIT))


@pytest.mark.usefixtures("waited")
def test_doctor_leaves_no_file(tmp_path: Path) -> None:
    said, files, _ = run(tmp_path, DOCTOR)
    assert "ONNX Runtime" in said
    assert files == []


@pytest.mark.usefixtures("waited")
def test_what_the_user_set_stays(toy_bundle: Path, tmp_path: Path) -> None:
    said, *_ = run(tmp_path, SCRIPT, str(toy_bundle), "0", telemetry="0")
    assert said.split()[1] == "0"


def test_a_loaded_model_leaves_no_file_and_opens_no_socket(waited: Future[tuple[str, list[str], str]]) -> None:
    said, files, calls = waited.result()
    assert said.split() == ["1", "1"], "one thread, and the variable's value"
    assert files == []
    assert "socket" not in calls
