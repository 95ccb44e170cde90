"""Locks on files that end with their process, however it ends: the kernel gives them back."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from samrt.errors import OutputError

LOCK_NAME = ".samrt-lock"


def take(path: Path, *, create: bool = True) -> int:
    """Lock a file until `os.close` of what is returned, or the end of this process and its forked children.

    Args:
        path: the file; a link is not followed.
        create: make the file if need be.

    Raises:
        BlockingIOError: it is locked already, here or in another process.
        ImportError: this platform has no such locks (Windows).
        OSError: the file cannot be opened or made, or its file system has no locks.
    """
    import fcntl

    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one who held it before may have removed this file in between.
            if os.path.lexists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextmanager
def folder_lock(folder: Path, work: str) -> Iterator[None]:
    """Hold a folder until the block ends, or this process, however that does.

    Args:
        folder: exists and is writable.
        work: what is done in it, for the message: "evaluation".

    Raises:
        OutputError: another process holds it, or the lock cannot be written.
    """
    path = folder / LOCK_NAME
    try:
        descriptor = take(path)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}".encode(), 0)
    except ImportError:
        yield
        return
    except BlockingIOError:
        holder = ""
        with suppress(OSError):
            holder = path.read_bytes()[:100].decode(errors="replace")
        raise OutputError(
            f"another {work} is at work in {folder}: {holder or 'a process that has just begun'}; wait for its "
            "end, or choose another folder"
        ) from None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; check the permissions and the free space") from error
    process = os.getpid()
    try:
        yield
    finally:
        if process == os.getpid():  # a forked child has no part in it
            path.unlink(missing_ok=True)
        os.close(descriptor)
