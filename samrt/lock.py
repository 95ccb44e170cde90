"""One process at a time works in a folder; another is refused, and told which one it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from samrt.errors import OutputError

LOCK_NAME = ".samrt-lock"


@contextmanager
def folder_lock(folder: Path, work: str) -> Iterator[None]:
    """Hold a folder until the block ends, or this process, however that does.

    Args:
        folder: exists and is writable.
        work: what is done in it, for the message: "evaluation".

    Raises:
        OutputError: another process holds it, or the lock cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # Windows has other locks
        yield
        return
    path = folder / LOCK_NAME
    try:
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The one who held it before may have removed this file in between.
                if os.path.lexists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    break
            except BlockingIOError:
                holder = os.pread(descriptor, 100, 0).decode(errors="replace")
                os.close(descriptor)
                raise OutputError(
                    f"another {work} is at work in {folder}: {holder or 'a process that has just begun'}; wait for its "
                    "end, or choose another folder"
                ) from None
            os.close(descriptor)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {path}: {error.strerror}; check the permissions and the free space") from error
    process = os.getpid()
    try:
        yield
    finally:
        if process == os.getpid():  # a forked child has no part in it
            path.unlink(missing_ok=True)
        os.close(descriptor)
