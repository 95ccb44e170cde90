"""Locks on files that end with their process, however it ends: the kernel gives them back."""

from __future__ import annotations

import errno
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from samrt.errors import OutputError
from samrt.processes import this_process

LOCK_NAME = ".samrt-lock"
# What flock says on file systems that have no locks, such as NFS mounted without.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class NoLocksError(OSError):
    """This system (Windows) or this file system has no such locks."""


def take(path: Path, note: bytes | None = None) -> int:
    """Lock a file until `os.close` of what is returned, or the end of this process and its forked children.

    Args:
        path: a regular file; a link is not followed.
        note: who locks it: what the file holds from then on, which is made if need be. None: a file that exists is
            locked and stays as it is.

    Raises:
        BlockingIOError: it is locked already, here or in another process.
        NoLocksError: it cannot be locked. Where the file system is the reason, the file may have been made.
        OSError: the file cannot be opened, made or written.
    """
    try:
        import fcntl
    except ImportError:
        raise NoLocksError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(path)) from None
    # Without O_NONBLOCK, opening a device may wait.
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | (0 if note is None else os.O_CREAT)
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EEXIST, "a pipe or a device of that name exists", str(path))
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one who held it before may have removed this file in between.
            if os.path.lexists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                if note is not None:
                    os.truncate(descriptor, 0)
                    os.pwrite(descriptor, note, 0)
                return descriptor
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError) and error.errno in _NO_LOCKS:
                raise NoLocksError(error.errno, error.strerror, str(path)) from error
            raise
        os.close(descriptor)


@contextmanager
def folder_lock(folder: Path, work: str) -> Iterator[None]:
    """Hold a folder until the block ends, or this process, however that does. Without locks nobody is refused.

    Args:
        folder: exists and is writable.
        work: what is done in it, for the message: "evaluation".

    Raises:
        OutputError: another process holds it, or the lock cannot be written.
    """
    path = folder / LOCK_NAME
    descriptor = None
    try:
        descriptor = take(path, f"process {os.getpid()} on {platform.node()}".encode())
    except NoLocksError:
        pass
    except BlockingIOError:
        holder = ""
        with suppress(OSError):
            holder = path.read_bytes()[:100].decode(errors="replace")
        raise OutputError(
            f"another {work} is at work in {folder}: {holder or 'a process that has just begun'}; wait for its "
            "end, or choose another folder"
        ) from None
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; check the permissions and the free space, or remove what is there"
        ) from error
    process = this_process()
    try:
        yield
    finally:
        if process == this_process():  # a forked child has no part in it
            with suppress(OSError):
                path.unlink()
        if descriptor is not None:
            os.close(descriptor)
