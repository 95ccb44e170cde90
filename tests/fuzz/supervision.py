"""Watches the worker of one target: starts it, counts its outcomes, keeps its findings, and starts it again."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

_HERE = Path(__file__).resolve().parent
_SETUP_SECONDS = 120.0
# Each input is written there before it is run.
_MEMORY_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_KEPT = 3  # of the inputs that fail at one place


@dataclass
class Supervision:
    """One target's run.

    Attributes:
        target: the target's file.
        findings: the folder where inputs that fail are kept, each with a text beside it.
        seed: of the mutations.
        seconds: how long inputs are made; `count` ends it earlier.
        limit: seconds for one input.
        inputs, outcomes, kinds: how many were run, by the word that the target returned, and findings by kind.
        known: names of crashes of libraries that nothing here can prevent, by what these print; they are counted only.
        growth: by how many bytes resident memory grew after the worker's first inputs, at most.
    """

    target: Path
    findings: Path
    seed: int
    seconds: float
    limit: float = 20.0
    count: int | None = None
    input: Path | None = None
    inputs: int = 0
    elapsed: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    signatures: Counter[str] = field(default_factory=Counter)
    growth: int = 0
    known: dict[str, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.target.stem

    def run(self, stop: Event) -> None:
        """Until the time is over, all inputs are done, or `stop` is set."""
        begin = time.monotonic()
        done = False
        while not done and not stop.is_set():
            with tempfile.TemporaryDirectory(
                prefix=f"fuzz-{self.name}-", dir=_MEMORY_DISK, ignore_cleanup_errors=True
            ) as folder:
                done = self._work(Path(folder), begin, stop)
        self.elapsed = time.monotonic() - begin

    def _work(self, folder: Path, begin: float, stop: Event) -> bool:
        """One worker's life; whether it was the last."""
        left = sys.maxsize if self.count is None else self.count - self.inputs
        if left <= 0:
            return True
        command = [sys.executable, _HERE / "worker.py", self.target, folder, self.seed, self.inputs, left]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "ORT_DISABLE_TELEMETRY": "1", "PYTHONFAULTHANDLER": "1"}
        with (folder / "stderr").open("ab") as errors:
            process = subprocess.Popen(
                [*map(str, command), *([str(self.input)] if self.input else [])],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                # Ctrl-C is the parent's, and what a target starts goes with it.
                start_new_session=True,
            )
        try:
            return self._listen(process, folder, begin, stop)
        finally:
            _kill(process)

    def _listen(self, process: subprocess.Popen[bytes], folder: Path, begin: float, stop: Event) -> bool:
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        rest, ready, heard = b"", False, time.monotonic()
        own, base = 0, 0  # inputs of this worker, and its memory after the first of them
        while True:
            now = time.monotonic()
            self.elapsed = now - begin
            if stop.is_set() or (ready and self.elapsed > self.seconds):
                return True
            if now - heard > (self.limit if ready else _SETUP_SECONDS):
                # Python's own traceback goes to the worker's stderr.
                process.send_signal(signal.SIGABRT)
                _wait(process, 5)
                self._keep(_current(folder), "hang", "hang", f"no answer within {now - heard:.0f} s\n{_tail(folder)}")
                self.inputs += ready
                return self._over() or not ready
            if not select.select([pipe], [], [], 0.1)[0]:
                continue
            chunk = os.read(pipe, 1 << 16)
            if not chunk:
                return self._crashed(process, folder, ready)
            heard = now
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                word, _, text = line.decode().partition(" ")
                if word == "ready":
                    ready, self.known = True, json.loads(text)
                    continue
                if word == "end":
                    # After the last input, or after one that took too much memory.
                    return self._over()
                self.inputs += 1
                if word == "done":
                    self.outcomes[text] += 1
                else:
                    found = json.loads(text)
                    self._keep(bytes.fromhex(found["input"]), found["kind"], found["signature"], found["text"])
            own += len(lines)
            resident = _resident(process.pid)
            if own < 200 or not base:
                base = resident
            self.growth = max(self.growth, resident - base)

    def _over(self) -> bool:
        return self.input is not None or (self.count is not None and self.inputs >= self.count)

    def _crashed(self, process: subprocess.Popen[bytes], folder: Path, ready: bool) -> bool:
        _wait(process, 10)
        code = process.returncode
        what = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        self.inputs += ready
        tail = _tail(folder)
        known = next((name for mark, name in self.known.items() if mark in tail), None)
        if known is not None and self.input is None:
            self.outcomes[f"known-{known}"] += 1
        else:
            self._keep(_current(folder), "crash", f"crash {what}", f"the process ended with {what}\n{tail}")
        return self._over() or not ready

    def _keep(self, data: bytes, kind: str, signature: str, text: str) -> None:
        self.kinds[kind] += 1
        self.signatures[signature] += 1
        self.texts.append(f"{kind}: {text}")
        if self.signatures[signature] > _KEPT or self.input is not None:
            return
        stem = f"{self.name}-{kind.replace(' ', '_')}-{hashlib.sha256(data).hexdigest()[:12]}"
        self.findings.mkdir(parents=True, exist_ok=True)
        (self.findings / f"{stem}.input").write_bytes(data)
        (self.findings / f"{stem}.txt").write_text(f"{kind} in {self.name}, seed {self.seed}\n{text}\n")


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _current(folder: Path) -> bytes:
    path = folder / "current"
    return path.read_bytes() if path.exists() else b""


def _tail(folder: Path) -> str:
    return (folder / "stderr").read_bytes()[-4000:].decode(errors="replace")


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
