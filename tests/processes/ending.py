"""How a forked child ends, within a limit of time."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

LIMIT_S = 8


def end_here(status: int) -> None:
    """End the process as `sys.exit` does, but without leaving the functions that it is in."""
    ctypes.pythonapi.Py_Exit(status)


def ending(child: Callable[[], object], end: Callable[[int], object] = sys.exit) -> str:
    """Fork a child that ends by `sys.exit`, so that the interpreter takes down all it inherited.

    Returns:
        "exit N", "signal N" or "hangs".
    """
    number = os.fork()
    if number == 0:
        try:
            child()
        except BaseException:
            traceback.print_exc()
            end(1)
        end(0)
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            return f"exit {code}" if code >= 0 else f"signal {-code}"
        time.sleep(0.005)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return "hangs"
