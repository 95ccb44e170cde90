"""The record of every image, kept as soon as it is made, so that an interrupted evaluation can go on.

One file of JSON lines per model and data set. The first line says what was evaluated and how; each other one is an
image. Unlike all else that samrt writes it grows in place: a line is flushed to the disk before the next image begins,
and a line that was cut short by a crash is dropped when the file is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from samrt.errors import InputError, OutputError, Remedy
from samrt.files import replacing_file

FORMAT_VERSION = 1
# By which a journal is known again: how its first line begins.
JOURNAL_MARK = b'{"format_version":'
ANOTHER_FOLDER = Remedy("choose another folder ({output})")
OVERWRITE = Remedy("choose another folder ({output}), or replace it with {overwrite}", {"overwrite": True})
RESTART = Remedy("choose another folder ({output}), or start anew with {restart}", {"restart": True})


class Journal:
    """An open journal, in a `with` block.

    Attributes:
        path: the file.
        done: names of the images in it.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Open the journal, or begin it.

        Args:
            path: the file; its folder exists.
            header: what is evaluated and how, as JSON; a journal of something else is refused.

        Raises:
            InputError: there is a journal of something else, or a damaged one.
            OutputError: it cannot be read or written.
        """
        self.path = path
        self.done: set[str] = set()
        try:
            if path.exists():
                check_journal(path, header)
                self._continue()
            else:
                with replacing_file(path) as temporary:
                    temporary.write_bytes(_line(_full(header)))
            # A buffer would keep what a full disk refused, and fail with it again when the file is closed.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise _not_written(path, error) from error

    def add(self, record: Mapping[str, Any]) -> None:
        """Write an image's record, `{"image": name, ...}`, and wait until it is on the disk.

        Raises:
            OutputError: the disk is full or gone; the images before are kept.
        """
        try:
            rest = memoryview(_line(record))
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _not_written(self.path, error) from error
        self.done.add(record["image"])

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _continue(self) -> None:
        end = self.path.stat().st_size
        for start, record in _whole_lines(self.path):
            if record is None:
                end = start
            elif start > 0:
                self.done.add(record["image"])
        os.truncate(self.path, end)


def check_journal(path: Path, header: Mapping[str, Any]) -> None:
    """Find out before long work whether a journal can go on, if there is one.

    Raises:
        InputError: it is of something else than `header` says, or damaged.
        OutputError: it cannot be read.
    """
    if not path.exists():
        return
    try:
        found = next(_whole_lines(path), (0, None))[1]
    except OSError as error:
        raise _not_written(path, error) from error
    if found is None:
        raise InputError(f"{path} is damaged: its first line is cut short", RESTART)
    wanted = _full(header)
    differing = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
    if differing:
        raise InputError(f"{path} holds an evaluation of something else: it differs in {', '.join(differing)}", RESTART)


def read_records(path: Path, images: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The records of `images` in their order, one at a time: a large data set's would fill the memory.

    The lines may lie in another order, because a line that was lost is made again at the end.

    Raises:
        InputError: the file is damaged, or holds not exactly these images.
        OutputError: it cannot be read.
    """
    try:
        places = {record["image"]: start for start, record in _whole_lines(path) if start > 0 and record is not None}
        differing = sorted(places.keys() ^ set(images))
        if differing:
            raise InputError(f"{path} holds not exactly the images of its data set, see {differing[0]!r}", RESTART)
        with path.open("rb") as file:
            for image in images:
                file.seek(places[image])
                yield json.loads(file.readline())
    except OSError as error:
        raise _not_written(path, error) from error


def _whole_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Where each line begins in the file, and what it says; None for a last line that was cut short."""
    with path.open("rb") as file:
        start = 0
        images: set[str] = set()
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                yield start, None
                return
            try:
                content = json.loads(line)
            except (ValueError, RecursionError):
                content = None
            if not isinstance(content, dict) or (number > 1 and not _is_record(content, images)):
                raise InputError(f"{path} is damaged in line {number}", RESTART)
            if number > 1:
                images.add(content["image"])
            yield start, content
            start += len(line)


def _is_record(content: Mapping[str, Any], before: set[str]) -> bool:
    """Whether a line is the record of an image that has none in the lines before."""
    image, instances = content.get("image"), content.get("instances")
    return isinstance(image, str) and image not in before and isinstance(instances, list)


def _full(header: Mapping[str, Any]) -> dict[str, Any]:
    """The header as it is read back: JSON knows no tuples."""
    full: dict[str, Any] = json.loads(json.dumps({"format_version": FORMAT_VERSION, **header}))
    return full


def _line(content: Mapping[str, Any]) -> bytes:
    # A journal is read by other programs too, and JSON has no NaN: the decoder's results are finite.
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _not_written(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot read or write {path}: {error.strerror or error}; check the permissions and the free space. "
        "The images that were done are kept"
    )
