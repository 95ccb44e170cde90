"""How long work reports what it does: `export`, `build_bundle` and `evaluate` take a `Progress`.

    samrt.build_bundle("vit_b", progress=samrt.Lines(print))

Any object with the two methods below will do, for example one that moves a progress bar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from samrt.errors import Reason
from samrt.visible import visible


class Progress(Protocol):
    """What long work calls, always in the thread that started it.

    An exception from either method stops the work and reaches the caller. The text may hold names from files, with
    whatever characters these have; `Lines` escapes those that no terminal should get.
    """

    def say(self, line: str | Reason) -> None:
        """One line of text without a line end: a step that begins, or something to know, perhaps with a remedy."""

    def step(self, what: str, done: int, total: int) -> None:
        """`done` of `total` of `what` are done. The first call for a `what` gives those that an earlier run did."""


class Silent:
    """The `Progress` that shows nothing; a base class for one that needs only one of the methods."""

    def say(self, line: str | Reason) -> None:
        """Does nothing."""

    def step(self, what: str, done: int, total: int) -> None:
        """Does nothing."""


class Lines:
    """The `Progress` that hands text lines to a function: `Lines(print)`, `Lines(logger.info)`, `Lines(lines.append)`.

    Counts become at most eleven lines for each `what`: one whenever another tenth is done.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        """`write` is called with each line, without a line end."""
        self._write = write
        self._tenths: dict[str, int] = {}

    def say(self, line: str | Reason) -> None:
        """Write the line."""
        self._write(visible(str(line)))

    def step(self, what: str, done: int, total: int) -> None:
        """Write "`what`: `done` of `total`" if another tenth is done."""
        tenths = 10 * done // max(total, 1)
        if tenths != self._tenths.get(what):
            self._tenths[what] = tenths
            self._write(visible(f"{what}: {done} of {total}"))


SILENT = Silent()
