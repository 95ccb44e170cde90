"""Text from files reaches terminals, logs and pages without control characters."""

from __future__ import annotations

import pytest

from samrt.errors import BundleError, Reason, Remedy
from samrt.progress import Lines
from samrt.visible import CELL, LONGEST, visible

# Escape sequences, ends of lines as Python and Unicode know them, C1, directions, no width, half a pair, a tag.
HOSTILE = "\x1b[2J\x07\r\n\t\x00\x0b\x1c\x85\x9b31m\u2028\u202e\u2066\u200b\u200f\xad\ufeff\udcff\ud800\U000e0041"
ESCAPED = r"\x1b[2J\x07\r\n\t\x00\x0b\x1c\x85\x9b31m\u2028\u202e\u2066\u200b\u200f\xad\ufeff\udcff\ud800\U000e0041"


def test_escapes_what_is_not_seen() -> None:
    assert visible(HOSTILE) == ESCAPED
    assert visible(ESCAPED) == ESCAPED


@pytest.mark.parametrize(
    "text", ["Größe_日本語\u3000\xa0\u202f.png", "\u0645\u06cc\u200c\u062e", "👩\u200d🔬", r"C:\x1b", "a | b"]
)
def test_leaves_what_people_write(text: str) -> None:
    assert visible(text) == text


def test_long_text_keeps_both_ends() -> None:
    shown = visible("begin" + "x" * 10**6 + "export the checkpoint again")
    assert len(shown) == LONGEST
    assert shown.startswith("begin")
    assert shown.endswith("xexport the checkpoint again")
    assert len(visible("x" * 1000, CELL)) == CELL


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    error = BundleError(f"a name {HOSTILE}", Remedy("leave {output} out", {"output": HOSTILE}))
    assert error.facts == f"a name {ESCAPED}"
    for text in (str(error), str(error.reason), str(Reason(HOSTILE))):
        assert visible(text) == text
    assert Remedy("give {it}").said(lambda *_: HOSTILE) == f"give {ESCAPED}"


def test_lines_of_progress() -> None:
    lines: list[str] = []
    progress = Lines(lines.append)
    progress.say(HOSTILE)
    progress.step(HOSTILE, 0, 1)
    assert lines == [ESCAPED, f"{ESCAPED}: 0 of 1"]
