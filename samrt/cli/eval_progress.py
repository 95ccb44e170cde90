"""How far an evaluation is: one line that changes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

from samrt.evaluation import Listener
from samrt.evaluation.evaluate import ANNOTATIONS

# Seconds between lines where they stay, in a log.
_PAUSE = 10.0


class Progress(Listener):
    """Shows the images that are done, and the time that is left, on `stream`.

    Attributes:
        kept: whether an image's scores are on the disk, of this run or of one before.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._what = ""
        self._started = self._shown = 0.0
        self._before = 0
        self._line_open = False
        self.kept = False

    def step(self, what: str, done: int, total: int) -> None:
        """Show a count, unless the last one was shown a moment ago."""
        self.kept |= done > 0 and not what.endswith(ANNOTATIONS)
        now = time.monotonic()
        if what != self._what:
            self.end_line()
            self._what, self._started, self._before, self._shown = what, now, done, now
            # Nothing to say yet, except of what an earlier run did.
            if done:
                self.say(f"{what}: {done} of {total} images were done before")
            return
        if done < total and now - self._shown < (0.1 if self._terminal else _PAUSE):
            return
        self._shown = now
        line = f"{what}: {done} of {total} images{self._left(done, total, now)}"
        if self._terminal:
            # Clears what a longer line before left on the right.
            self._stream.write(f"\r{line}\x1b[K")
            self._line_open = True
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self.end_line()
        self._stream.write(f"samrt: {line}\n")
        self._stream.flush()

    def end_line(self) -> None:
        """Let what comes next begin on a line of its own."""
        if self._line_open:
            self._stream.write("\n")
            self._line_open = False

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
