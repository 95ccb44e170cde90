"""The tables of docs/images.md are those of the code. `python tests/images/test_images_page.py` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from samrt.images.formats import FORMATS
from samrt.images.kinds import KINDS
from samrt.images.limits import MAX_PIXELS
from samrt.images.orientation import turned

PAGE = Path(__file__).resolve().parents[2] / "docs" / "images.md"
# A picture of 2 rows and 3 columns, whose pixels are numbered as they are stored.
STORED = np.array([["1", "2", "3"], ["4", "5", "6"]])


def table(*rows: tuple[str, ...]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ("---",) * len(rows[0]), *rows[1:])) + "\n"


def tables() -> Iterator[tuple[str, str]]:
    yield "formats", table(("format", "what samrt does with it"), *FORMATS.items())
    yield (
        "kinds",
        table(
            ("kind", "pixels", "what they become, 0..255"),
            *((f"`{name}`", kind.pixels, kind.result) for name, kind in KINDS.items()),
        ),
    )
    yield (
        "orientations",
        table(
            ("orientation", "rows 1 2 3 and 4 5 6 are seen as"),
            *((str(n), " and ".join(" ".join(row) for row in turned(STORED, n))) for n in range(1, 9)),
            ("another value, or another type than a number", "1 2 3 and 4 5 6"),
        ),
    )
    yield (
        "sizes",
        table(
            ("size", "what samrt does with it"),
            (f"up to {MAX_PIXELS:,} pixels, such as 16384 x 16384 or 16384 x 12288 (200 megapixels)", "reads it"),
            ("more", "refuses it before it is decoded: shrink it, or pass parts of it as arrays"),
            ("0 pixels", "refuses it"),
            ("more than 16,777,216 pixels, and more than 10,000 for each byte of the file", "refuses it"),
        ),
    )


def written() -> str:
    text = PAGE.read_text(encoding="utf-8")
    for name, content in tables():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert len(marks.findall(text)) == 1
        text = marks.sub(lambda match, content=content: f"{match[1]}\n{content}\n{match[2]}", text)
    return text


def test_the_tables_are_those_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == written(), f"run: python {Path(__file__).name}"


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
