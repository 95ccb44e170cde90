"""The log of a run: log.jsonl and stderr."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from samrt.files import replacing_file

_LOGGED_EVERY = 20


class Log:
    """Means over the steps since the last line, one JSON object a line, on the disk and on stderr."""

    def __init__(self, path: Path, stage: int, step: int) -> None:
        self._path, self._stage = path, stage
        self._seen: list[dict[str, float]] = []
        self._step = step
        self._since = time.monotonic()
        if path.exists():
            # Removes the lines of steps after the checkpoint: the run does these steps again.
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            kept = [line for line in lines if _place(line) <= (stage, step)]
            with replacing_file(path) as fresh:
                fresh.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def add(self, step: int, figures: dict[str, float]) -> None:
        """A step's figures; those since the last line are written every few steps."""
        self._seen.append(figures)
        self._step = step
        if (step + 1) % _LOGGED_EVERY == 0:
            self.write()

    def write(self) -> None:
        """A line of the steps since the last, if there were any."""
        if not self._seen:
            return
        seen: dict[str, list[float]] = {}
        for name, value in (pair for each in self._seen for pair in each.items()):
            if np.isfinite(value):  # a step without boxes has no figure for them
                seen.setdefault(name, []).append(value)
        means = {name: float(np.mean(values)) for name, values in sorted(seen.items())}
        seconds = (time.monotonic() - self._since) / len(self._seen)
        line = {"stage": self._stage, "step": self._step + 1, **{k: round(v, 6) for k, v in means.items()}}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "seconds": round(seconds, 3)}) + "\n")
        shown = " ".join(f"{name} {value:.3g}" for name, value in means.items())
        print(
            f"stage {self._stage} step {self._step + 1}: {shown} ({seconds:.2f} s a step)", file=sys.stderr, flush=True
        )
        self._seen, self._since = [], time.monotonic()


def _place(line: str) -> tuple[int, int]:
    entry = json.loads(line)
    return entry["stage"], entry["step"]
