"""Progress of long commands on stderr."""

from __future__ import annotations

import io

import pytest

from samrt.cli import terminal
from samrt.cli.terminal import Terminal
from samrt.errors import Reason, Remedy


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(terminal.time, "monotonic", lambda: self.now)


def test_a_log_has_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(monkeypatch), io.StringIO()
    progress = Terminal(stream)
    progress.step("shapes", 10, 100)
    for done in range(11, 101):
        clock.now += 4
        progress.step("shapes", done, 100)

    lines = stream.getvalue().splitlines()
    assert lines[0] == "[   0.0 s] shapes: 10 of 100 were done before"
    assert lines[1] == "shapes: 13 of 100, 5 min 48 s left"
    assert lines[-1] == "shapes: 100 of 100, 360 s"
    assert len(lines) == 31


def test_a_terminal_has_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(monkeypatch), io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    progress = Terminal(stream)
    progress.step("shapes", 0, 2)
    for done in (1, 2):
        clock.now += 3000
        progress.step("shapes", done, 2)
    progress.say("over")

    assert stream.getvalue() == (
        "\rshapes: 1 of 2, 50 min 00 s left\x1b[K\rshapes: 2 of 2, 6000 s\x1b[K\n[6000.0 s] over\n"
    )


def test_a_reason_is_said_with_its_remedy_in_flags() -> None:
    stream = io.StringIO()
    Terminal(stream).say(Reason("skipped an engine", Remedy("build it with {precision}", {"precision": "fp32"})))
    assert stream.getvalue().endswith("skipped an engine; build it with --precision fp32\n")
