"""Writing so that a crash or a full disk never leaves half a file or folder: beside the target, then renamed.

What is being written lies in a work folder (`samrt.work_folder`). What killed processes left of theirs is removed by
whoever writes to the same folder next.

What a user names for an output may exist and be the user's own. samrt's files carry a mark near their beginning, by
which they are known again: writers hand it in, and what is there without it stays. It is no signature.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from samrt.errors import InputError, OutputError, Remedy, SamrtError
from samrt.exchange import exchange
from samrt.processes import this_process
from samrt.work_folder import NEW, OLD, WHOLE, Check, Say, discard, log, remove_leftovers, work_folder

_READ_SIZE = 1 << 18
# Marks lie within so many bytes.
_HEAD = 512
# How often, and over which errors, the swap of two folders is tried again.
_SWAPS = 20
# As Linux follows in one path.
_LINKS = 40
_RACES = (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST)


def path_of(given: object, what: str, error: type[SamrtError] = InputError) -> Path:
    """A caller's path.

    Args:
        given: a str or an `os.PathLike` of str.
        what: for the error: "the data set".
        error: its type.

    Raises:
        SamrtError: `error`: it is of another type, or no file can have that name.
    """
    if not isinstance(given, str | os.PathLike) or not isinstance(os.fspath(given), str):
        raise error(f"{what} must be a path, a str or a pathlib.Path, not {type(given).__name__}")
    path = Path(given)
    try:
        os.stat(path)
    except OSError:
        pass  # whoever opens it says so
    except ValueError as reason:  # a NUL, or half of a surrogate pair
        raise error(f"no file can have the name of {what}, {str(path)[:200]!r}: {reason}") from reason
    return path


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read its bytes.

    Raises:
        OSError: there is none, or what is there has no end or makes one wait for it: a pipe, a device, a folder.
    """

    # Without O_NONBLOCK, opening a pipe that nobody writes to would wait forever.
    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=opener)  # noqa: SIM115 - it is returned
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a regular file", str(path))
    return file


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes.

    Raises:
        OSError: as `open_regular`; with `errno.EFBIG` where it has more, of which nothing was read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > limit else file.read(limit + 1)
    if max(size, len(content)) > limit:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, and samrt reads {limit:,} of such a file", str(path))
    return content


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content. Raises OSError, as `open_regular`."""
    with open_regular(path) as file:
        return sha256_of_open(file)


def sha256_of_open(file: BufferedReader) -> str:
    """The same of a file that is open, from where it is."""
    digest = hashlib.sha256()
    # One block, small enough for the processor's cache.
    block = memoryview(bytearray(_READ_SIZE))
    while size := file.readinto(block):
        digest.update(block[:size])
    return digest.hexdigest()


def check_target(target: str | os.PathLike[str], mark: bytes | None = None, say: Say = log) -> None:
    """Find out before long work whether `replacing_file` can begin there; `say` is told what leftovers were removed.

    Raises:
        OutputError: the folder is missing or not writable, or what is at `target` is not a regular file or lacks the
            mark.
    """
    target = path_of(target, "the output", OutputError)
    with _reporting(target):
        file = _file_at(target)
        check_mark(file, mark)
        remove_leftovers(file.parent, say=say)
        with work_folder(file):
            pass


def check_mark(file: Path, mark: bytes | None) -> None:
    """Find out whether a file may be replaced: it is not there, is empty, or has the mark near its beginning.

    Args:
        file: any path.
        mark: what samrt's own files of this kind hold; None: whatever is there may be replaced.

    Raises:
        OutputError: samrt did not write the file, or it cannot be read.
    """
    with _reporting(file):
        if mark is None or not file.exists():
            return
        with open_regular(file) as content:
            head = content.read(_HEAD)
    if head and mark not in head:
        raise OutputError(
            f"{file} exists, and samrt did not write it",
            Remedy("choose another name, or replace it with {overwrite}", {"overwrite": True}),
        )


@contextmanager
def replacing_file(target: str | os.PathLike[str], mark: bytes | None = None) -> Iterator[Path]:
    """Yield a path beside `target` to write to; rename it onto `target` when the block succeeds.

    A symbolic link at `target` stays one: the file that it leads to is replaced. One that another user made, and that
    is not root's, is refused.

    Args:
        target: the file.
        mark: what a file that is there must hold near its beginning, if it is to be replaced (`check_mark`).

    Raises:
        OutputError: the folder is missing or not writable, the disk is full, or what is at `target` is not a regular
            file or lacks the mark. `target` keeps its old content.
    """
    target = path_of(target, "the output", OutputError)
    with _reporting(target):
        file = _file_at(target)
        check_mark(file, mark)
        remove_leftovers(file.parent)
        process = this_process()
        with work_folder(file) as work:
            # The suffix stays because some writers choose the format by it.
            temporary = work / f"{NEW}{file.suffix}"
            temporary.touch()
            yield temporary
            _check_process(process, target)
            _sync(temporary)
            # Again: the work in between may have been long.
            check_mark(file, mark)
            temporary.replace(file)


@contextmanager
def replacing_folder(target: str | os.PathLike[str], check: Check = lambda _: None, say: Say = log) -> Iterator[Path]:
    """Yield an empty folder beside `target` to fill; rename it to `target` when the block succeeds.

    A folder that is already at `target`, or where a link there leads, exchanges its name with the new one and is
    deleted with all that is in it. Where the system cannot exchange names, it is moved aside first, so one of the two
    is always whole.

    Args:
        target: the folder.
        check: is called with the old folder, under another name, before it is deleted. What it raises brings the old
            folder back: a file that came into it at the last moment is not lost.
        say: is told what was found of processes that were killed while they did the same.

    Raises:
        OutputError: as `replacing_file`; also when `target` exists and is not a folder.
    """
    target = path_of(target, "the output", OutputError)
    with _reporting(target):
        folder = _follow(target)
        remove_leftovers(folder.parent, check, folder.name, say)
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"cannot write the folder {target}: a file of that name exists; choose another name")
        process = this_process()
        with work_folder(folder) as work:
            temporary = work / NEW
            temporary.mkdir()
            yield temporary
            _check_process(process, target)
            for path in temporary.rglob("*"):
                if path.is_file():
                    _sync(path)
            temporary.rename(work / WHOLE)
            _swap_folder(work, folder, check)


def _swap_folder(work: Path, target: Path, check: Check) -> None:
    """Put the whole folder in `work` at `target`. A kill at any moment leaves one at `target`, or two in `work`."""
    fresh, old = work / WHOLE, work / OLD
    for attempt in range(_SWAPS):
        if target.is_dir() and exchange(fresh, target):
            # Only now does nobody find it by its name to put a file in.
            try:
                check(fresh)
            except BaseException:
                if exchange(fresh, target):  # else it is the old one still, and stays
                    discard(fresh)
                raise
            discard(fresh)
            return
        try:
            if target.exists():
                target.rename(old)
                check(old)
            fresh.rename(target)
        except BaseException as error:
            with suppress(OSError):
                old.rename(target)
            # Somebody else replaced the same folder in the same moment; whoever comes last wins.
            again = isinstance(error, OSError) and error.errno in _RACES and attempt < _SWAPS - 1
            if not again and fresh.exists():
                discard(fresh)
            if old.exists():
                check(old)
                discard(old)
            if not again:
                raise
        else:
            if old.exists():
                discard(old)
            return


def _check_process(process: tuple[int, int], target: str | os.PathLike[str]) -> None:
    if process != this_process():
        raise OutputError(
            f"{target} was not written by this process, which was forked meanwhile; its parent goes on writing it"
        )


@contextmanager
def _reporting(target: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write {target}: {reason}; check the path, the permissions and the free space. "
            "Nothing that was there before has changed"
        ) from error


def _follow(target: str | os.PathLike[str]) -> Path:
    """What `target` means once its links are followed; renaming onto a link would replace the link."""
    if Path(target).name in ("", ".."):
        raise OutputError(f"cannot write {target}: that is a folder without a name of its own; name what to write")
    if not Path(target).parent.is_dir():
        raise OutputError(f"cannot write {target}: the folder {Path(target).parent} does not exist; create it first")
    _check_links(Path(target))
    return Path(os.path.realpath(target))


def _check_links(target: Path) -> None:
    """Refuse a link that somebody else put in the place of an output, as any user can in a folder such as /tmp.

    Those of the user and of the system's administrator are followed: whoever owns a link chose where it leads. A chain
    of links is looked at as far as it goes.
    """
    if not hasattr(os, "geteuid"):  # Windows: a link needs a privilege there
        return
    for _ in range(_LINKS):
        if not target.is_symlink():
            return
        if target.lstat().st_uid not in (0, os.geteuid()):
            raise OutputError(f"{target} is a link that another user made; remove it, or choose another name")
        target = target.parent / os.readlink(target)


def _file_at(target: str | os.PathLike[str]) -> Path:
    """`_follow`, refusing what a file must not replace."""
    file = _follow(target)
    if file.exists() and not file.is_file():
        raise OutputError(
            f"cannot write {target}: it is not a regular file but a folder, a device or a pipe; choose another name"
        )
    return file


def _sync(path: Path) -> None:
    # Opened for writing, because Windows flushes no other file.
    with path.open("rb+") as file:
        os.fsync(file.fileno())
