"""Progress of long commands: lines that stay, and a count that changes in place on a terminal."""

from __future__ import annotations

import time
from typing import TextIO

from samrt.cli.remedies import in_flags
from samrt.cli.streams import discard
from samrt.errors import Reason
from samrt.visible import visible

# Seconds between lines of a count where they stay, in a log; and on a terminal.
_PAUSE, _TERMINAL_PAUSE = 10.0, 0.1


class Terminal:
    """The `samrt.progress.Progress` of the command line.

    Attributes:
        done: the last count of each thing that was counted.
    """

    def __init__(self, stream: TextIO) -> None:
        """Seconds are counted from here."""
        self.done: dict[str, int] = {}
        self._stream = stream
        self._terminal = stream.isatty()
        self._began = time.monotonic()
        self._what = ""
        self._started = self._shown = 0.0
        self._before = 0
        self._line_open = False

    def say(self, line: str | Reason) -> None:
        """Show a line that stays, with the seconds since the beginning; of a reason, its remedy in flags."""
        self.end_line()
        text = in_flags(line) if isinstance(line, Reason) else line
        self._write(f"[{time.monotonic() - self._began:6.1f} s] {visible(text)}\n")

    def step(self, what: str, done: int, total: int) -> None:
        """Show a count and the time that is left, unless the last one was shown a moment ago."""
        self.done[what] = done
        now = time.monotonic()
        if what != self._what:
            self.end_line()
            self._what, self._started, self._before, self._shown = what, now, done, now
            # Nothing to show yet, except what an earlier run did.
            if done:
                self.say(f"{what}: {done} of {total} were done before")
            return
        if done < total and now - self._shown < (_TERMINAL_PAUSE if self._terminal else _PAUSE):
            return
        self._shown = now
        line = visible(f"{what}: {done} of {total}{self._left(done, total, now)}")
        if self._terminal:
            # Clears what a longer line before left on the right.
            self._write(f"\r{line}\x1b[K")
            self._line_open = True
        else:
            self._write(f"{line}\n")

    def end_line(self) -> None:
        """Let what comes next begin on a line of its own."""
        if self._line_open:
            self._write("\n")
            self._line_open = False

    def _write(self, text: str) -> None:
        # As `tell`: a closed pipe or a full disk under stderr must not stop the work.
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            discard(self._stream)

    def _left(self, done: int, total: int, now: float) -> str:
        made = done - self._before
        if done >= total:
            return f", {now - self._started:.0f} s"
        return f", {_duration((now - self._started) / made * (total - done))} left" if made else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
