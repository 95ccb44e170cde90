"""Progress as text lines."""

from __future__ import annotations

from samrt.progress import Lines


def test_lines_and_every_tenth_of_a_count_are_written() -> None:
    lines: list[str] = []
    progress = Lines(lines.append)
    progress.say("reading")
    for done in range(31, 101):
        progress.step("images of fruit", done, 100)
    progress.step("images of cups", 0, 0)

    assert lines[0] == "reading"
    assert lines[1] == "images of fruit: 31 of 100"
    assert lines[2:-1] == [f"images of fruit: {done} of 100" for done in range(40, 101, 10)]
    assert lines[-1] == "images of cups: 0 of 0"
