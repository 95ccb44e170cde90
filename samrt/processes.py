"""What a forked child must leave alone: objects of native libraries, locks and files that its parent made.

A child has a copy of its parent's memory and only the thread that forked. The parent's native objects have threads of
their own that the child lacks: destroying them there waits for those threads for ever. Locks that other threads held
stay locked.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

_forks = 0


def _count() -> None:
    global _forks  # noqa: PLW0603
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count)


def this_process() -> tuple[int, int]:
    """Differs between this process and every other that it was forked from.

    The number of a dead ancestor may come again; the count of forks misses those by C code, as uWSGI's.
    """
    return os.getpid(), _forks


def finalize_here(holder: object, function: Callable[..., object], *arguments: object) -> weakref.finalize[..., Any]:
    """`weakref.finalize` that does nothing in a forked child."""
    return weakref.finalize(holder, _in_process, this_process(), function, arguments)


def keep_while_alive(holder: object, native: object) -> weakref.finalize[..., Any]:
    """Let `native` be destroyed only in this process: with `holder`, by calling what is returned, or at exit.

    In a forked child it is never destroyed, whoever drops it there.
    """
    # A reference that no variable holds, so that not even the end of the interpreter drops it.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))
    return finalize_here(holder, ctypes.pythonapi.Py_DecRef, ctypes.py_object(native))


class ForkSafeLock:
    """A reentrant lock that a forked child finds open, whichever thread of its parent held it."""

    def __init__(self) -> None:
        self._locks: dict[tuple[int, int], threading.RLock] = {}

    def here(self) -> threading.RLock:
        """This process's own lock, for a `with` statement."""
        return self._locks.setdefault(this_process(), threading.RLock())


def _in_process(owner: tuple[int, int], function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    if owner == this_process():
        function(*arguments)
