"""What a phase is given: where it writes, what earlier phases found, how long it may take."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samrt.files import replacing_file

_ERROR_LENGTH = 800


class NotHereError(Exception):
    """This phase is skipped; the text says why."""


class WrongResultError(Exception):
    """This phase ran and found a wrong result; the text says which."""


@dataclass
class Work:
    """One phase's view of the run.

    Attributes:
        folder: shared by all phases, deleted at the end.
        phase: this phase's name.
        smoke: on a CPU, to test the script; nothing is measured that may be quoted.
        deadline: on `time.monotonic`'s clock, when the process is ended.
        attempts: what was tried, and whether it went well.
    """

    folder: Path
    phase: str
    smoke: bool
    deadline: float
    attempts: dict[str, bool] = field(default_factory=dict)
    _result: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, *keys: str, value: Any) -> None:
        """Put `value` under the nested `keys` of this phase's result, on the disk at once; threads may do so."""
        with self._lock:
            level = self._result
            for key in keys[:-1]:
                level = level.setdefault(key, {})
            level[keys[-1]] = _finite(value)
            with replacing_file(self.folder / f"{self.phase}.json") as fresh:
                fresh.write_text(json.dumps(self._result, allow_nan=False), encoding="utf-8")

    def take(self, reports: Iterable[tuple[tuple[str, ...], Any]]) -> None:
        """Record what a process of its own reports (`isolated`)."""
        for keys, value in reports:
            self.record(*keys, value=value)
            self.attempts[", ".join(keys)] = not (isinstance(value, dict) and "error" in value)

    def attempt(self, *keys: str, call: Callable[[], Any]) -> Any:
        """Record what `call` returns, or its error under "error"; returns it, or None after an error.

        For what may fail on some machines without making the rest worthless.
        """
        name = ", ".join(keys)
        self.attempts[name] = False
        # If the process crashes, this entry remains.
        self.record(*keys, value={"error": "began and did not end"})
        try:
            value = call()
        except Exception as error:
            self.record(*keys, value={"error": f"{type(error).__name__}: {error}"[:_ERROR_LENGTH]})
            return None
        self.record(*keys, value=value)
        self.attempts[name] = True
        return value

    def of(self, phase: str) -> dict[str, Any]:
        """What an earlier phase recorded; empty where it did not run."""
        path = self.folder / f"{phase}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()


def _finite(value: Any) -> Any:
    """The same value, with null in place of numbers that JSON cannot represent."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
