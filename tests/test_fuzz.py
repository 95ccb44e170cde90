"""The fuzzers' runner finds each kind of fault; the targets are run by `make fuzz`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parent / "fuzz" / "run.py"
TARGET = """
import os, sys, time

MEMORY = 16 << 20
KNOWN = {"a fault of others": "theirs"}

def corpus(folder):
    return [b"good", b"crash", b"untyped", b"wrong", b"memory", b"exit", b"hang", b"known", b"end"]

def run(data, state):
    print("a library's words", data, flush=True)
    print("and its warnings", file=sys.stderr)
    if data == b"known":
        print("a fault of others", file=sys.stderr)
    if data in (b"crash", b"known"):
        os.abort()
    if data == b"exit":
        os._exit(0)
    if data == b"hang":
        time.sleep(60)
    if data == b"untyped":
        raise KeyError("x")
    if data == b"memory":
        bytearray(os.urandom(1 << 20) * 48)
    assert data != b"wrong", "differs"
    return "taken"
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "toy.py"
    path.write_text(TARGET)
    return path


def fuzz(target: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUN), str(target), "--findings", str(target.parent / "found"), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_each_kind_of_fault_is_found_and_kept_with_its_input_and_the_others_are_run(target: Path) -> None:
    done = fuzz(target, "--inputs", "9", "--limit", "4", "--seed", "5")
    assert done.returncode == 1
    row = next(line for line in done.stdout.splitlines() if line.startswith("toy "))
    assert re.match(r"toy +9 ", row)
    for count in ("crash 2", "untyped error 1", "wrong result 1", "memory 1", "hang 1", "taken 2", "known-theirs 1"):
        assert count in row
    kept = {path.read_bytes(): path.with_suffix(".txt").read_text() for path in target.parent.glob("found/*.input")}
    assert "SIGABRT" in kept[b"crash"]
    assert "exit status 0" in kept[b"exit"]
    assert "KeyError" in kept[b"untyped"]
    assert "AssertionError: differs" in kept[b"wrong"]
    assert "resident memory" in kept[b"memory"]
    assert "time.sleep(60)" in kept[b"hang"] or "toy.py" in kept[b"hang"]
    assert len(kept) == 6
    (file,) = target.parent.glob("found/toy-wrong_result-*.input")
    again = fuzz(target, "--input", str(file))
    assert again.returncode == 1
    assert "AssertionError: differs" in again.stdout


def test_the_same_seed_makes_the_same_inputs(target: Path) -> None:
    target.write_text(
        "def corpus(folder):\n    return [b'0123']\n\ndef run(data, state):\n    return data.hex()[:40]\n"
    )
    first, second, other = (fuzz(target, "--inputs", "30", "--seed", seed) for seed in "112")
    assert first.returncode == 0
    outcomes = [run.stdout.splitlines()[-1].split("MiB", 1)[1] for run in (first, second, other)]
    assert outcomes[0] == outcomes[1] != outcomes[2]


def test_an_interrupted_run_ends_with_the_table_and_leaves_no_worker(target: Path) -> None:
    target.write_text(
        "import os, time\n\ndef corpus(folder):\n    return [b'']\n\ndef run(data, state):\n"
        f"    open({str(target.parent / 'pid')!r}, 'w').write(str(os.getpid()))\n    time.sleep(60)\n"
    )
    command = [sys.executable, str(RUN), str(target), "--findings", str(target.parent / "found")]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pid = target.parent / "pid"
    while not (pid.exists() and pid.read_text()):
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    shown, _ = run.communicate(timeout=30)
    assert shown.splitlines()[-1].startswith("toy ")
    assert run.returncode == 0
    assert not Path(f"/proc/{pid.read_text()}").exists()
