"""A program in its own process that reports results one by one, and is started again after a crash or a hang.

An illegal access makes a CUDA context unusable, a crash ends the process, a hang never ends. Only the result that was
being computed is lost: the program continues with the next one in a new process.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from work import Work

Keys = tuple[str, ...]

FINISHED = "finished"
SLOWNESS = "SAMRT_GPU_SLOWNESS"  # run.py's --slow, for its processes

_PROGRAM = Path(__file__).resolve().parent / "worker.py"
_MARK = "\x1e"  # before a report; what else the program prints is its own
_UNUSABLE = 3  # exit code of a program whose CUDA context is
_TICK_S = 0.5
_TOLD = 800
_PR_SET_PDEATHSIG = 1


class WorkerError(Exception):
    """The program ended outside any of its results; the text is the end of what it printed."""


class Reporter:
    """The program's side: tells its parent what came of each call, and leaves out what an earlier process did."""

    def __init__(self, done: Iterable[tuple[list[str], Any]], usable: Callable[[], bool]) -> None:
        """`usable` says, after an error, whether this process can go on."""
        self.values: dict[Keys, Any] = {tuple(keys): value for keys, value in done}
        self._usable = usable

    def is_done(self, *keys: str) -> bool:
        return keys in self.values

    def attempt(self, *keys: str, call: Callable[[], Any]) -> None:
        """Report what `call` returns, or its error under "error"; nothing is called where that was reported before."""
        if keys in self.values:
            return
        _say({"began": keys})
        try:
            value = call()
        except Exception as error:
            value = {"error": f"{type(error).__name__}: {error}"[:_TOLD]}
            _say({"ended": keys, "value": value})
            if not self._usable():
                sys.exit(_UNUSABLE)
        else:
            _say({"ended": keys, "value": value})
        self.values[keys] = value


class Isolated:
    """Reports of `workers/<name>.py`, as (keys, value), until it has none left or the time is over.

    Attributes:
        ended: after the last report, "finished" where the program came to its own end, else why not.
        restarts: why it was started again, each time.
    """

    def __init__(
        self,
        work: Work,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        silence_s: float = 60,
        seconds: float | None = None,
    ) -> None:
        """`arguments` go to the program, `environment` on top of this process's; one result takes up to `silence_s`.

        All of them take up to `seconds`, or what time the phase has.
        """
        self._deadline = time.monotonic() + (work.seconds_left if seconds is None else seconds)
        self._work, self._name = work, name
        self._silence_s = silence_s * float(os.environ.get(SLOWNESS, "1"))
        self._arguments, self._environment = dict(arguments or {}), {**os.environ, **(environment or {})}
        self.ended = "the time ran out"
        self.restarts: list[str] = []

    def __iter__(self) -> Iterator[tuple[Keys, Any]]:
        done: dict[Keys, Any] = {}
        while self._left() > 0:
            before, began = len(done), None
            with self._start(done) as process:
                printed: list[str] = []
                try:
                    for line in self._lines(process):
                        text, mark, report = line.partition(_MARK)
                        printed = [*printed, text][-40:]
                        said = json.loads(report) if mark else {}
                        if "began" in said:
                            began = tuple(said["began"])
                        elif "ended" in said:
                            began, keys = None, tuple(said["ended"])
                            done[keys] = said["value"]
                            yield keys, said["value"]
                    code = process.wait()
                    why = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                except TimeoutError:
                    code, why = None, f"did not end within {self._silence_s:.0f} s"
                finally:
                    process.kill()
            if code == 0:
                self.ended = FINISHED
                return
            if code is None and self._left() <= 0:
                return
            if began is not None:
                done[began] = {"error": f"{why}: {' '.join(printed)[-_TOLD:]}"}
                yield began, done[began]
            elif code == _UNUSABLE and len(done) > before:
                why = "its CUDA context was unusable"
            else:
                self.ended = f"workers/{self._name}.py {why}: {' '.join(printed)[-_TOLD:]}"
                raise WorkerError(self.ended)
            self.restarts.append(f"{why} after {', '.join(list(done)[-1])}")

    @property
    def account(self) -> dict[str, Any]:
        """How it ended, for the result."""
        return {"ended": self.ended, **({"started again": self.restarts} if self.restarts else {})}

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _start(self, done: Mapping[Keys, Any]) -> subprocess.Popen[bytes]:
        work = self._work
        command = [sys.executable, str(_PROGRAM), self._name, str(work.folder), f"{self._left():.1f}"]
        process = subprocess.Popen(
            [*command, *(["--smoke"] if work.smoke else [])],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdin is not None
        told = json.dumps({"done": list(done.items()), "arguments": self._arguments}).encode()
        with contextlib.suppress(BrokenPipeError):  # one that ended at once says why in what it printed
            process.stdin.write(told)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return process

    def _lines(self, process: subprocess.Popen[bytes]) -> Iterator[str]:
        """What it prints, line by line. Raises TimeoutError where it is silent too long, or the time is over."""
        assert process.stdout is not None
        last, rest = time.monotonic(), b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if self._left() <= 0 or time.monotonic() - last > self._silence_s:
                    raise TimeoutError
                if not selector.select(_TICK_S):
                    if process.poll() is not None:  # what it started may hold the pipe open
                        return
                    continue
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                if not chunk:
                    return
                last = time.monotonic()
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)


def end_with_parent() -> None:
    """Let the kernel end this process when the one that started it ends, however that does."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _say(report: dict[str, Any]) -> None:
    # The C library's and Python's own output go the same way, and may be in the middle of a line.
    sys.stdout.write(f"{_MARK}{json.dumps(report)}\n")
    sys.stdout.flush()
