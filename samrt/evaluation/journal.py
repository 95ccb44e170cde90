"""The record of every image, kept as soon as it is made, so that an interrupted evaluation can go on.

One file of JSON lines per model and data set. The first line says what was evaluated and how; each other one is an
image. Unlike all else that samrt writes it grows in place: a line is flushed to the disk before the next image begins.
Each line ends with a checksum of the rest, `"crc32"`: one that was cut short or damaged, or that no evaluation of the
data set can have written, is dropped when the file is opened again, and its image is evaluated again.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from samrt.errors import InputError, OutputError, Remedy
from samrt.files import open_regular, replacing_file

FORMAT_VERSION = 2
# By which a journal is known again: how its first line begins.
JOURNAL_MARK = b'{"format_version":'
_CHECKSUM = b',"crc32":'
# Bytes in a line: a hundred thousand instances take half. A damaged file may have no end of a line at all.
LONGEST_LINE = 2**28
ANOTHER_FOLDER = Remedy("choose another folder ({output})")
OVERWRITE = Remedy("choose another folder ({output}), or replace it with {overwrite}", {"overwrite": True})
RESTART = Remedy("choose another folder ({output}), or start anew with {restart}", {"restart": True})


class Journal:
    """An open journal, in a `with` block.

    Attributes:
        path: the file.
        done: names of the images in it.
        dropped: how many lines were found damaged or unfit and dropped.
    """

    def __init__(
        self, path: Path, header: Mapping[str, Any], fits: Callable[[Mapping[str, Any]], bool] = lambda _: True
    ) -> None:
        """Open the journal, or begin it.

        Args:
            path: the file; its folder exists.
            header: what is evaluated and how, as JSON; a journal of something else is refused.
            fits: whether a record can be one of this evaluation; others are dropped.

        Raises:
            InputError: there is a journal of something else, or one whose first line is damaged.
            OutputError: it cannot be read or written.
        """
        self.path = path
        self.done: set[str] = set()
        self.dropped = 0
        try:
            if path.exists():
                check_journal(path, header)
                self._continue(fits)
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
            InputError: it is longer than any line that is read again.
            OutputError: the disk is full or gone; the images before are kept.
        """
        try:
            line = _line(record)
            if len(line) > LONGEST_LINE:
                raise InputError(
                    f"the scores of {record['image']} take {len(line):,} bytes, and samrt keeps {LONGEST_LINE:,} of an "
                    "image; evaluate fewer kinds of prompts, or leave out annotations"
                )
            rest = memoryview(line)
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

    def _continue(self, fits: Callable[[Mapping[str, Any]], bool]) -> None:
        whole = []
        for start, line in _lines(self.path, fits):
            if line is None:
                self.dropped += 1
            else:
                whole.append(start)
                if start > 0:
                    self.done.add(line["image"])
        if self.dropped:
            with replacing_file(self.path) as temporary, self.path.open("rb") as old, temporary.open("wb") as new:
                for start in whole:
                    old.seek(start)
                    new.write(old.readline())


def check_journal(path: Path, header: Mapping[str, Any]) -> None:
    """Find out before long work whether a journal can go on, if there is one.

    Raises:
        InputError: it is of something else than `header` says, or its first line is damaged.
        OutputError: it cannot be read.
    """
    if not path.exists():
        return
    try:
        found = next(_lines(path), (0, None))[1]
    except OSError as error:
        raise _not_written(path, error) from error
    if found is None:
        raise InputError(f"{path} is damaged in its first line, or of an older version of samrt", RESTART)
    wanted = _full(header)
    differing = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
    if differing:
        raise InputError(f"{path} holds an evaluation of something else: it differs in {', '.join(differing)}", RESTART)


def read_records(path: Path, images: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The records of `images` in their order, one at a time: a large data set's would fill the memory.

    The lines may lie in another order, because a line that was lost is made again at the end.

    Raises:
        InputError: the file holds not exactly these images.
        OutputError: it cannot be read.
    """
    try:
        places = {line["image"]: start for start, line in _lines(path) if start > 0 and line is not None}
        differing = sorted(places.keys() ^ set(images))
        if differing:
            raise InputError(f"{path} holds not exactly the images of its data set, see {differing[0]!r}", RESTART)
        with path.open("rb") as file:
            for image in images:
                file.seek(places[image])
                yield _read_line(file.readline()) or {}
    except OSError as error:
        raise _not_written(path, error) from error


def _lines(
    path: Path, fits: Callable[[Mapping[str, Any]], bool] = lambda _: True
) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Where each line begins in the file, and what it says; None for one that is damaged, unfit or repeats an image."""
    with open_regular(path) as file:
        images: set[str] = set()
        for start, line in _split(file):
            content = _read_line(line)
            if start > 0 and content is not None:
                content = content if _is_record(content, images) and fits(content) else None
                images.update([] if content is None else [content["image"]])
            yield start, content


def _split(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Where each line begins, and its bytes; the last is one that is longer than `LONGEST_LINE`, cut off."""
    start = 0
    while line := file.readline(LONGEST_LINE + 1):
        yield start, line
        start += len(line)
        if len(line) > LONGEST_LINE:
            return  # nothing that samrt wrote, and it may go on for as long as the disk


def _read_line(line: bytes) -> dict[str, Any] | None:
    """What a line says, without its checksum; None where it is damaged."""
    text, _, checksum = line.removesuffix(b"}\n").rpartition(_CHECKSUM)
    if len(line) > LONGEST_LINE or not line.endswith(b"}\n") or checksum != f'"{zlib.crc32(text):08x}"'.encode():
        return None
    try:
        content = json.loads(text + b"}")
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


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
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode().removesuffix(b"}")
    return text + _CHECKSUM + f'"{zlib.crc32(text):08x}"}}\n'.encode()


def _not_written(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot read or write {path}: {error.strerror or error}; check the permissions and the free space. "
        "The images that were done are kept"
    )
