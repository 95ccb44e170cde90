"""Work folders: where a file or a folder is made before it takes its name, and what killed processes leave of them.

While NAME is written, `.NAME.HEX.samrt-work` lies beside it. In it:

| name | content |
|---|---|
| `.samrt-lock` | which process works here, for what name; it is locked until that process ends |
| `new`, with the suffix of NAME | what is being written |
| `whole` | a folder that is complete: the new one, or after the two exchanged their names the old one |
| `old` | the old folder, moved aside where the system cannot exchange names |
| `trash` and a number | what is being deleted |

The names are states, because a rename is one step. A folder with such a lock that nobody holds is a killed process's.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from samrt.errors import OutputError
from samrt.lock import LOCK_NAME, NoLocksError, take
from samrt.processes import this_process
from samrt.visible import visible

NEW, WHOLE, OLD, _TRASH = "new", "whole", "old", "trash"
Check = Callable[[Path], None]
Say = Callable[[str], object]

_FORMAT = "samrt-work"
_NAME = re.compile(rf"\..+\.[0-9a-f]{{8}}\.{_FORMAT}", re.DOTALL)
_DELETED = re.compile(rf"{NEW}(\..*)?|{_TRASH}[0-9a-f]{{8}}", re.DOTALL)
_MODE = 0o700
_MARK_LIMIT = 1 << 14
_TRIES = 20
# A folder with more entries is looked through once by a process: whoever writes many files there would look each time.
_MANY = 5000
_looked_through: set[Path] = set()
_log = logging.getLogger(__name__)


def log(line: str) -> None:
    """The `Say` of those who have no progress to tell: a warning in samrt's log, which Python shows on stderr."""
    _log.warning("%s", visible(line))


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """A new, locked folder beside `target`, only for this user. What is done with it is deleted at the end.

    Folders in it called `whole` and `old` stay, for `remove_leftovers`.

    Raises OSError.
    """
    process = this_process()
    folder, lock = _begin(target)
    try:
        yield folder
    finally:
        if process == this_process():
            _end(folder, lock)
        elif lock is not None:
            os.close(lock)


def discard(path: Path) -> None:
    """Let a `whole` or an `old` folder be deleted with the work folder that it is in."""
    path.rename(path.with_name(_TRASH + secrets.token_hex(4)))


def is_at_work(path: Path) -> bool:
    """Whether a process holds the work folder `path`."""
    if not _NAME.fullmatch(path.name) or path.is_symlink():
        return False
    try:
        os.close(take(path / LOCK_NAME))
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def remove_leftovers(folder: Path, check: Check | None = None, name: str | None = None, say: Say = log) -> None:
    """Delete what killed processes have left of their work in `folder`; bring back an old folder moved aside.

    What is not beyond doubt a work folder of this user that nobody holds is left alone.

    Args:
        folder: where the targets lie; it may be absent.
        check: raises OutputError for a folder that must not be deleted. Without it none is deleted that was complete.
        name: of the target whose complete folders `check` is for; None: of any.
        say: is told what was removed, brought back or kept.
    """
    if folder in _looked_through or not hasattr(os, "geteuid"):  # Windows has no such locks
        return
    try:
        names = os.listdir(folder)
    except OSError:
        return
    if len(names) > _MANY:
        _looked_through.add(folder)
    lines: list[str] = []
    for each in sorted(filter(_NAME.fullmatch, names)):
        # Another process may do the same now, or not let this one.
        with suppress(OSError):
            _remove(folder / each, check, name, lines.append)
    for line in lines:
        say(line)


def _begin(target: Path) -> tuple[Path, int | None]:
    for attempt in range(_TRIES):
        folder = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.{_FORMAT}")
        try:
            folder.mkdir(mode=_MODE)
            try:
                return folder, _lock(folder, target.name)
            except BaseException:
                _end(folder, None)
                raise
        except (FileExistsError, FileNotFoundError, BlockingIOError):
            # Before it is locked, another process may take it for a leftover.
            if attempt == _TRIES - 1:
                raise
    raise AssertionError


def _lock(folder: Path, name: str) -> int | None:
    mark = {"format": _FORMAT, "target": name, "process": os.getpid(), "machine": _machine()}
    try:
        return take(folder / LOCK_NAME, json.dumps(mark).encode())
    except NoLocksError:
        # So that nobody takes the folder for a leftover.
        (folder / LOCK_NAME).write_text("this file system has no locks")
        return None


@functools.cache
def _machine() -> list[str]:
    """By what this machine is known again: its name, and where containers have names of their own, its kernel's."""
    found = [platform.node()]
    with suppress(OSError):
        found.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    return found


def _end(folder: Path, lock: int | None) -> None:
    try:
        with suppress(OSError):
            _empty(folder)
    finally:
        if lock is not None:
            os.close(lock)  # before the folder: NFS keeps the name of a file that is open
    with suppress(OSError):
        folder.rmdir()


def _empty(folder: Path) -> None:
    """Delete what is in a work folder, the lock last: without it nobody knows what the rest is."""
    for path in folder.iterdir():
        if _DELETED.fullmatch(path.name):
            _delete(path)
    if set(os.listdir(folder)) <= {LOCK_NAME}:
        (folder / LOCK_NAME).unlink(missing_ok=True)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove(work: Path, check: Check | None, name: str | None, say: Say) -> None:
    found = work.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    if not os.listdir(work):
        # As `_begin` and `_end` have it for a moment, so nothing is said: its process may be alive.
        if stat.S_IMODE(found.st_mode) & 0o777 == _MODE:
            work.rmdir()
        return
    lock = take(work / LOCK_NAME)
    try:
        names, mark = set(os.listdir(work)), _read_mark(lock)
        begun = names != {LOCK_NAME} or os.fstat(lock).st_size > 0  # else as `_begin` has it
        if begun and (mark is None or not all(map(_is_state, names))):
            return
        if mark is not None and check is not None:
            target = work.with_name(mark["target"])
            if name in (None, target.name):
                _settle(work, target, check, say)
        if {WHOLE, OLD} & set(os.listdir(work)):
            return
        _empty(work)
    finally:
        os.close(lock)
    left = "" if mark is None else f"{work}, which process {mark['process']} that was killed left behind"
    try:
        work.rmdir()
    except OSError as error:
        if left:
            say(f"cannot remove {left}: {error.strerror}; delete it")
    else:
        if left:
            say(f"removed {left}")


def _settle(work: Path, target: Path, check: Check, say: Say) -> None:
    """Bring a complete folder back if the target is gone, and let the others be deleted if `check` allows it."""
    old, whole = work / OLD, work / WHOLE
    if old.is_dir() and whole.is_dir():
        discard(whole)  # the new one: nothing was exchanged
    for path in (old, whole):
        if not path.is_dir():
            continue
        try:
            # Works where nothing is, or an empty folder.
            path.rename(target)
            say(f"brought back {target}, which a process that was killed had moved to {path}")
        except OSError:
            try:
                check(target)
                check(path)
                discard(path)
            except OutputError as error:
                say(f"kept {path}, an earlier {target.name}, because {error.facts}")


def _is_state(name: str) -> bool:
    return name in (LOCK_NAME, WHOLE, OLD) or _DELETED.fullmatch(name) is not None


def _read_mark(lock: int) -> dict[str, Any] | None:
    """What a lock says, if it is of this machine: on a network, another's process may be at work in spite of it."""
    try:
        mark = json.loads(os.pread(lock, _MARK_LIMIT, 0))
        target, machine = mark["target"], mark["machine"]
        own = mark["format"] == _FORMAT and isinstance(mark["process"], int) and set(machine) & set(_machine())
        plain = Path(target).name == target and target not in ("", "..") and b"\0" not in os.fsencode(target)
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return mark if own and plain else None
