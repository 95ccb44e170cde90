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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_forks = 0
# Threads within `no_fork_meanwhile`, by number; whoever forks holds the condition.
_within: list[int] = []
_nobody_within = threading.Condition()


def this_process() -> tuple[int, int]:
    """Differs between this process and every other that it was forked from.

    The number of a dead ancestor may come again; the count of forks misses those by C code, as uWSGI's.
    """
    return os.getpid(), _forks


@contextmanager
def no_fork_meanwhile() -> Iterator[None]:
    """Let forks of other threads wait for the block: a lock of a native library would stay locked in the child."""
    thread = threading.get_ident()
    with _nobody_within:
        _within.append(thread)
    try:
        yield
    finally:
        with _nobody_within:
            # Where a child was forked within the block, it has forgotten its parent's threads.
            if thread in _within:
                _within.remove(thread)
            _nobody_within.notify_all()


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


def _before_fork() -> None:
    _nobody_within.acquire()
    thread = threading.get_ident()
    while any(each != thread for each in _within):
        _nobody_within.wait()


def _after_in_parent() -> None:
    _nobody_within.release()


def _after_in_child() -> None:
    global _forks, _nobody_within  # noqa: PLW0603
    _forks += 1
    _within.clear()
    _nobody_within = threading.Condition()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
