"""What a forked child leaves alone, without a model; with one: tests/processes."""

from __future__ import annotations

import gc
import os
import threading
import time

import pytest
from processes.ending import ending

from samrt.processes import ForkSafeLock, finalize_here, keep_while_alive, no_fork_meanwhile, this_process

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


class Native:
    """Says when it is destroyed."""

    def __init__(self) -> None:
        self.destroyed: list[bool] = []

    def __del__(self) -> None:
        self.destroyed.append(True)


class Holder:
    pass


def test_a_native_object_dies_with_its_holder_or_earlier() -> None:
    for early in (False, True):
        holder, native = Holder(), Native()
        destroyed, release = native.destroyed, keep_while_alive(holder, native)
        del native
        gc.collect()
        assert destroyed == []
        if early:
            release()
        else:
            del holder
        assert destroyed == [True]


def test_a_child_never_destroys_it() -> None:
    holder, native = Holder(), Native()
    destroyed, called = native.destroyed, []
    release = keep_while_alive(holder, native)
    finalize_here(holder, called.append, True)
    things = [holder, native]
    del holder, native

    def child() -> None:
        release()
        things.clear()
        gc.collect()
        assert destroyed == called == []

    assert ending(child, os._exit) == "exit 0"
    things.clear()
    assert destroyed == called == [True]


def test_processes_differ() -> None:
    before = this_process()

    def child() -> None:
        assert this_process() not in (before, (before[0], before[1] + 1))
        assert this_process()[1] == before[1] + 1

    assert ending(child, os._exit) == "exit 0"
    assert this_process() == before


def test_a_child_finds_locks_open() -> None:
    lock, held, done = ForkSafeLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock.here():
            held.set()
            done.wait()

    def child() -> None:
        with lock.here(), lock.here():
            pass

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert ending(child, os._exit) == "exit 0"
        assert not lock.here().acquire(blocking=False), "in this process it is held"
    finally:
        done.set()
        thread.join()


def test_a_fork_waits_for_other_threads_and_not_for_its_own() -> None:
    within, done = threading.Event(), []

    def block() -> None:
        with no_fork_meanwhile():
            within.set()
            time.sleep(0.2)
            done.append(True)

    thread = threading.Thread(target=block)
    thread.start()
    within.wait()

    def child() -> None:
        assert done
        with no_fork_meanwhile():
            assert ending(lambda: None, os._exit) == "exit 0"

    with no_fork_meanwhile():
        assert ending(child, os._exit) == "exit 0"
    thread.join()
    assert ending(child, os._exit) == "exit 0"
