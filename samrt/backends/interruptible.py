"""Calls into ONNX Runtime that Ctrl-C ends.

Python sees a signal when the call into C returns, which for a graph from a stranger may be never. So the main thread,
which alone gets signals, waits while another thread is in the call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

# Seconds that an interrupted call has to end. ONNX Runtime stops between two nodes, and one node can take minutes.
_PATIENCE = 1.0
_STEP = 0.2

_left: list[threading.Thread] = []


def interruptible(call: Callable[[], T], stop: Callable[[], object]) -> T:
    """What `call` returns or raises; where a signal's handler raises, as for Ctrl-C, that, after `stop`.

    Args:
        call: is made in another thread where this is the main one. It goes on there alone where `stop` does not end it
            within a second.
        stop: lets the call end soon, and may come before or after it.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    outcome: dict[str, Any] = {}
    # Not Thread.join: an exception out of it leaves a thread that looks ended in Python 3.11.
    ended = threading.Event()

    def work() -> None:
        try:
            outcome["result"] = call()
        except BaseException as error:
            outcome["error"] = error
        finally:
            ended.set()

    # A daemon, so that one that was left does not hold up the end of the program.
    thread = threading.Thread(target=work, name="samrt-onnxruntime", daemon=True)
    try:
        try:
            thread.start()
        except RuntimeError:  # no more threads: a limit, or the interpreter is about to end
            return call()
        # In steps, because a signal that the system hands to another thread does not end a wait, nor any on Windows.
        while not ended.wait(_STEP):
            pass
    except BaseException:
        stop()
        if thread.ident is not None and not ended.wait(_PATIENCE):
            _left.append(thread)
        raise
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    result: T = outcome["result"]
    return result


def is_call_left() -> bool:
    """Whether an interrupted call still goes on: then the process should end without exit handlers of C++."""
    return any(thread.is_alive() for thread in _left)
