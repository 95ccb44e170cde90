"""What is kept while an evaluation runs, whatever ends it."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from samrt import InputError, OutputError
from samrt.evaluation.journal import Journal, _line, check_journal, read_records

HEADER = {"model": {"id": "m"}, "prompts": ("box",), "data_set": "abc"}


def record(name: str) -> dict[str, Any]:
    return {"image": name, "instances": [{"name": "x"}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with two images."""
    file = tmp_path / "instances.jsonl"
    with Journal(file, HEADER) as journal:
        journal.add(record("a"))
        journal.add(record("b"))
    return file


def test_a_journal_goes_on_where_it_was(path: Path) -> None:
    with Journal(path, HEADER) as journal:
        assert journal.done == {"a", "b"}
        journal.add(record("c"))

    assert list(read_records(path, ["a", "b", "c"])) == [record(name) for name in "abc"]


def test_every_record_is_on_the_disk_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEADER) as journal:
        journal.add(record("a"))
        assert list(read_records(tmp_path / "j", ["a"])) == [record("a")]


@pytest.mark.parametrize("lost", [1, 10, 30])
def test_a_line_that_was_cut_short_is_dropped(path: Path, lost: int) -> None:
    path.write_bytes(path.read_bytes()[:-lost])

    with Journal(path, HEADER) as journal:
        assert journal.done == {"a"}
        journal.add(record("b"))
    assert list(read_records(path, ["a", "b"])) == [record("a"), record("b")]


def test_a_journal_of_something_else_is_refused_and_kept(path: Path) -> None:
    before = path.read_bytes()

    for act in (check_journal, Journal):
        with pytest.raises(InputError, match=r"differs in prompts, data_set; .*restart=True"):
            act(path, {**HEADER, "prompts": ("box", "points:1"), "data_set": "other"})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b'{"format', b"nonsense\n", b"[]\n"])
def test_a_journal_without_a_first_line_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"damaged.*restart=True"):
        Journal(path, HEADER)


def _sealed(text: bytes) -> bytes:
    return text + b',"crc32":"%08x"}' % zlib.crc32(text)


@pytest.mark.parametrize(
    "line",
    [
        b'{"image":"a","instances":[{"name":"y"}],"crc32":"00000000"}',
        b'{"image":"a","instances":[{"name":"x"}]}',
        b"",
        _sealed(b'{"image":3'),
        _sealed(b'{"image":"a"'),
        _sealed(b'{"image":"a","instances":{}'),
        _sealed(b'{"image":"a","instances":' + b"[" * 100_000),
        _sealed(b'["image"'),
    ],
)
def test_a_line_that_is_damaged_inside_is_dropped_and_made_again(path: Path, line: bytes) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + line + b"\n" + lines[2])

    with Journal(path, HEADER) as journal:
        assert (journal.done, journal.dropped) == ({"b"}, 1)
        journal.add(record("a"))
    assert list(read_records(path, ["a", "b"])) == [record("a"), record("b")]
    with Journal(path, HEADER) as journal:
        assert journal.dropped == 0


def test_each_changed_byte_of_a_line_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for place in range(first, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with Journal(path, HEADER) as journal:
            assert journal.done < {"a", "b"}


def test_a_line_without_an_end_does_not_fill_the_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samrt.evaluation.journal.LONGEST_LINE", 100)
    lines = path.read_bytes().splitlines(keepends=True)
    long = _line(record("c" * 500))
    path.write_bytes(b"".join([*lines[:2], long, lines[2]]))
    with Journal(path, HEADER) as journal:
        assert (journal.done, journal.dropped) == ({"a"}, 1)
        with pytest.raises(InputError, match="samrt keeps 100 of an image"):
            journal.add(record("d" * 500))
    assert path.read_bytes() == b"".join(lines[:2])
    with path.open("wb") as file:
        file.truncate(10**12)  # a hole
    with pytest.raises(InputError, match="damaged in its first line"):
        check_journal(path, HEADER)


def test_records_that_do_not_fit_are_dropped(path: Path) -> None:
    with Journal(path, HEADER, lambda record: record["image"] != "a") as journal:
        assert (journal.done, journal.dropped) == ({"b"}, 1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "j")
    for act in (check_journal, Journal):
        with pytest.raises(OutputError, match="a pipe or a device"):
            act(tmp_path / "j", HEADER)


def test_an_image_that_is_there_twice_counts_once(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[1]]))

    with Journal(path, HEADER) as journal:
        assert (journal.done, journal.dropped) == ({"a", "b"}, 1)
    assert list(read_records(path, ["a", "b"])) == [record("a"), record("b")]


def test_records_come_in_the_order_of_the_images(path: Path) -> None:
    """A line that was taken out is made again at the end."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    with Journal(path, HEADER) as journal:
        journal.add(record("a"))

    assert list(read_records(path, ["a", "b"])) == [record("a"), record("b")]


@pytest.mark.parametrize("images", [["a"], ["a", "b", "c"], ["a", "c"]])
def test_records_of_other_images_are_refused(path: Path, images: list[str]) -> None:
    with pytest.raises(InputError, match=r"not exactly the images of its data set, see '[bc]'; .*restart=True"):
        list(read_records(path, images))


def test_what_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        Journal(tmp_path / "absent" / "j", HEADER)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        Journal(tmp_path / "folder", HEADER)


def test_a_full_disk_is_an_output_error_and_what_was_done_is_kept(path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(OutputError, match="free space"), Journal(path, HEADER) as journal:
            journal.add(record("c"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with Journal(path, HEADER) as journal:
        assert journal.done == {"a", "b"}


def test_no_number_that_json_does_not_have_gets_in(path: Path) -> None:
    with Journal(path, HEADER) as journal, pytest.raises(ValueError, match="JSON"):
        journal.add({"image": "c", "instances": [{"iou": float("nan")}]})

    assert all(json.loads(line) for line in path.read_text().splitlines())
