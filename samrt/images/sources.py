"""Where the bytes of a picture come from: a path, bytes, or an open file. All become a file that can be read twice."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, cast

from samrt.errors import InputError


class SupportsRead(Protocol):
    """An open file or stream."""

    def read(self, size: int = ..., /) -> bytes:
        """The next bytes, all of them without a size."""


FileSource = str | os.PathLike[str] | bytes | bytearray | memoryview | SupportsRead


def is_file_source(source: object) -> bool:
    """Whether something is a `FileSource`."""
    return isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(source, "read")


def name_of(source: FileSource) -> str:
    """What errors call it."""
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the image given as bytes"
    name = getattr(source, "name", None)  # a number for a file descriptor without a name
    return name if isinstance(name, str) and name else "the image given as an open file"


@contextmanager
def open_source(source: FileSource) -> Iterator[IO[bytes]]:
    """A file to read and to seek in. What this opened is closed at the end; the caller's own file stays open.

    Raises:
        InputError: there is no such file, it is a folder or a device, it is empty, or reading it fails.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        file: IO[bytes] = io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        file = _open_path(Path(os.fsdecode(source)))
    else:
        file = _rewound(source)
    try:
        if not file.read(1):
            raise InputError(f"{name_of(source)} is empty: it has 0 bytes; copy or save it again")
        file.seek(0)
        yield file
    finally:
        if file is not source:
            file.close()


def _open_path(path: Path) -> IO[bytes]:
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return path.open("rb")
        if stat.S_ISFIFO(mode):
            return _read_pipe(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        # A ValueError is of a name that no file can have: with a NUL, or half of a surrogate pair.
        raise InputError(f"there is no image file at {path}; check the path") from error
    except OSError as error:
        raise unreadable(str(path), error) from error
    what = "a folder" if stat.S_ISDIR(mode) else "a device or a socket"
    raise InputError(f"there is no image file at {path}: it is {what}; name a file")


def _read_pipe(path: Path) -> IO[bytes]:
    """What a pipe delivers until its writer closes it, as of `<(command)` in a shell."""

    # Without O_NONBLOCK, opening a pipe that nobody writes to would wait forever.
    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)

    with open(path, "rb", buffering=0, opener=opener) as pipe:
        os.set_blocking(pipe.fileno(), True)
        return io.BytesIO(pipe.read())


def _rewound(source: SupportsRead) -> IO[bytes]:
    name = name_of(source)
    if isinstance(source, io.TextIOBase):
        raise InputError(f'{name} is open as text; open it with mode "rb"')
    try:
        file = cast("IO[bytes]", source)
        if hasattr(source, "seekable") and hasattr(source, "tell") and file.seekable():
            file.seek(0)
            if isinstance(file.read(0), bytes):
                return file
        content: Any = source.read()
    except (OSError, ValueError) as error:
        # A ValueError is of a file that is closed.
        raise unreadable(name, error) from error
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise InputError(
            f"read() of {name} returned {type(content).__name__}, not bytes; open it in binary mode, or pass its bytes"
        )
    return io.BytesIO(content)


def unreadable(name: str, error: Exception) -> InputError:
    """The error for a file whose bytes cannot be had."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return InputError(f"cannot read {name}: {reason}; check the path, its permissions and the medium it lies on")
