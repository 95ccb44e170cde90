"""A loaded model in worker processes: `multiprocessing` by each start method, torch's DataLoader, gunicorn."""

from __future__ import annotations

import http.client
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from absent import absent

import samrt

pytest_plugins = ("toy_fixtures",)

FOLDER = Path(__file__).parent


METHODS = multiprocessing.get_all_start_methods()


@pytest.mark.parametrize(
    ("what", "methods"),
    [
        *(("multiprocessing", [method]) for method in METHODS),
        # In one process, because each imports torch.
        ("data_loader", [method for method in METHODS if method != "forkserver"]),
    ],
)
def test_workers_predict_and_end(toy_bundle: Path, what: str, methods: list[str]) -> None:
    command = [sys.executable, str(FOLDER / "workers.py"), str(toy_bundle), what, *methods]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, _errors(result.stderr)) == (0, [])


def test_gunicorn_replaces_workers_of_a_preloaded_model(toy_bundle: Path) -> None:
    try:
        import gunicorn  # noqa: F401
    except ImportError:
        absent("gunicorn is not installed; it is in the extra `test`")
    with tempfile.TemporaryDirectory() as folder:  # a socket's path has 107 bytes at most
        place = Path(folder) / "socket"
        # Every request ends its worker, which inherited the model.
        options = f"--preload --max-requests 1 --workers 2 --timeout 15 --chdir {FOLDER} --bind unix:{place}".split()
        command = [sys.executable, "-m", "gunicorn", *options, "wsgi_app:application"]
        environment = {**os.environ, "SAMRT_TEST_BUNDLE": str(toy_bundle)}
        log = Path(folder) / "log"
        with log.open("w") as file:
            server = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        try:
            answers = [_get(place, server) for _ in range(6)]
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                status = server.wait(15)
            finally:
                server.kill()
        said = log.read_text()
    model = samrt.load(toy_bundle)
    image = np.arange(40 * 90 * 3, dtype=np.uint32).reshape(40, 90, 3).astype(np.uint8)
    expected = model.predict(model.encode(image), [[30.0, 20.0]], [1]).low_res_masks.tobytes()
    assert answers == [expected] * 6, said
    assert status == 0, said
    assert len(re.findall("Booting worker", said)) >= 5, said
    assert not re.search("SIG(SEGV|KILL|ABRT)|TIMEOUT|Traceback", said), said


def _get(place: Path, server: subprocess.Popen[bytes]) -> bytes:
    """The answer to one request, within 10 seconds; the socket may not be there yet."""
    end = time.monotonic() + 10
    while True:
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        try:
            connection.sock.connect(str(place))
            connection.request("GET", "/")
            return connection.getresponse().read()
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > end or server.poll() is not None:
                raise
            time.sleep(0.05)
        finally:
            connection.close()


def _errors(said: str) -> list[str]:
    """Python 3.12 and later warns of forks in a process with threads, which the user chose."""
    return [line for line in said.splitlines() if "DeprecationWarning" not in line and "os.fork()" not in line]
