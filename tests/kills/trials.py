"""One kill: a command in a process of its own, killed at a moment, then run again, and what it left looked at."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from kills.commands import Command, content, hidden

from samrt.files import sha256_of

# What a process does with files, as Python tells its audit hooks.
_START_SECONDS = 5  # of Python and its packages
_EVENTS = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "open", "os.listdir", "os.scandir", "shutil.rmtree")
# What shutil.rmtree does, by names in the folder that it is in.
_RELATIVE = ("os.remove", "os.rmdir")


class Trials:
    """Kills of one command.

    Attributes:
        counts: "kills", of them "program" (not forked); "old", "new" or "absent", the target after a kill; hidden
            "leftovers" after kills, and those "remaining" after the next run.
    """

    def __init__(self, command: Command, work: Path) -> None:
        self.command, self.work = command, work
        self.counts: Counter[str] = Counter()
        self._number = 0
        self.template = self._fresh()
        command.place(self.template)
        if not self._targets(self.template):
            self._run(self.template)
        # What every later run must end with, how long it takes, and how often it does something with a file.
        place, count = self._copy(), work / "operations"
        count.write_text("")
        begun = time.monotonic()
        assert self._status(place, lambda: _at_operation(place, 0, lambda: _append(count))) == 0, self._log.read_text()
        self.seconds = time.monotonic() - begun
        self.operations = count.stat().st_size
        self.after = content(place)
        shutil.rmtree(place)

    def kill(self, moments: random.Random) -> None:
        """Kill the command up to three times, let it end the next time, and look at what is there each time."""
        place = self._copy()
        for _ in range(moments.choice((1, 2, 3))):
            if not self._kill(place, moments):
                break  # it was done before
            self.counts["kills"] += 1
            self.counts[self._state(place)] += 1
            self.counts["leftovers"] += len(hidden(place))
        self._run(place)
        (target,) = self._targets(place)
        self.command.check(target)
        self.counts["remaining"] += len(hidden(place))
        found = content(place, hidden=True)
        assert found == self.after, f"{place}: {set(found.items()) ^ set(self.after.items())}"
        shutil.rmtree(place)

    def _state(self, place: Path) -> str:
        targets = self._targets(place)
        for target in targets:
            self.command.check(target)
        if not targets:
            return "absent"
        return "old" if _hashes(targets, place) == _hashes(self._targets(self.template), self.template) else "new"

    def _targets(self, place: Path) -> list[Path]:
        return list(place.glob(self.command.target))

    def _kill(self, place: Path, moments: random.Random) -> bool:
        """Whether it was killed: half of the times by the clock, else before one of its operations on files.

        One in twenty is not forked but begun as users begin it.
        """
        if moments.random() < 0.05:
            killed = self._kill_program(place, moments.uniform(0, self.seconds + _START_SECONDS))
            self.counts["program"] += killed
            return killed
        if moments.random() < 0.5:
            seconds = moments.uniform(0, self.seconds)
            return self._status(place, lambda: _kill_after(seconds)) == -signal.SIGKILL
        number = moments.randint(1, self.operations)
        return self._status(place, lambda: _at_operation(place, number, _kill_now)) == -signal.SIGKILL

    def _kill_program(self, place: Path, seconds: float) -> bool:
        with self._log.open("w") as log:
            program = subprocess.Popen(
                [sys.executable, "-m", "samrt", *self.command.words(place)], stdout=log, stderr=log
            )
            try:
                return program.wait(seconds) < 0
            except subprocess.TimeoutExpired:
                program.kill()
                return program.wait() == -signal.SIGKILL

    def _run(self, place: Path) -> None:
        status = self._status(place, lambda: None, self.command.again)
        assert status == 0, f"{self.command.name} in {place} ended with {status}: {self._log.read_text()[-2000:]}"

    def _status(self, place: Path, arm: Callable[[], object], words: Callable[[Path], list[str]] | None = None) -> int:
        """The exit status of the command in a forked process; minus the number of the signal that ended it."""
        sys.stdout.flush()
        number = os.fork()
        if number == 0:
            status = 70
            try:
                log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(log, 1)
                os.dup2(log, 2)
                self.command.patch()
                from samrt.cli import main

                arm()
                status = main((words or self.command.words)(place))
            finally:
                sys.stderr.flush()
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])

    @property
    def _log(self) -> Path:
        return self.work / "log"

    def _fresh(self) -> Path:
        self._number += 1
        place = self.work / f"{self.command.name.replace(' ', '_')}_{self._number}"
        place.mkdir()
        return place

    def _copy(self) -> Path:
        place = self._fresh()
        shutil.copytree(self.template, place, dirs_exist_ok=True)
        return place


def _hashes(targets: list[Path], place: Path) -> dict[Path, str]:
    files = [path for target in targets for path in (target, *target.rglob("*")) if path.is_file()]
    return {path.relative_to(place): sha256_of(path) for path in files}


def _append(count: Path) -> None:
    with count.open("a") as file:
        file.write("x")


def _kill_now() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_after(seconds: float) -> None:
    threading.Timer(seconds, _kill_now).start()


def _at_operation(place: Path, number: int, act: Callable[[], object]) -> None:
    """Call `act` before operation `number` on files below `place`; 0: before each."""
    seen, within = 0, False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen, within
        if within or event not in _EVENTS:
            return
        name = str(arguments[0])
        if not name.startswith(str(place)) and (os.path.isabs(name) or event not in _RELATIVE):
            return
        seen += 1
        if number in (0, seen):
            within = True
            act()
            within = False

    sys.addaudithook(hook)
