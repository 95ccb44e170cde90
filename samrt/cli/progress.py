"""Progress of long commands, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def timed_progress() -> Callable[[str], None]:
    """A function that prints a line with the seconds since this call."""
    start = time.perf_counter()

    def progress(line: str) -> None:
        print(f"[{time.perf_counter() - start:6.1f} s] {line}", file=sys.stderr, flush=True)

    return progress
