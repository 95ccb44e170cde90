"""What TensorRT says while it builds or runs, kept: its calls return None and tell the reason to the logger only."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from samrt.engines.flavours import Flavour
from samrt.processes import ForkSafeLock

# Far more than a build says; it bounds what an engine that runs for weeks can pile up.
_KEPT = 1000
# TensorRT goes on using the first logger of the process, so that one must outlive all others.
_first: dict[str, Any] = {}
_all: weakref.WeakSet[Any] = weakref.WeakSet()
_all_lock = ForkSafeLock()
_of_this_thread = threading.local()


def collecting_logger(flavour: Flavour) -> Any:
    """A TensorRT logger with the lists of text `errors`, `warnings` and `info`, oldest first; nothing is printed.

    `errors` and `warnings` keep the first 1,000 lines, as the first is the cause; `info` keeps the last, where the
    figures stand. Whatever is given this logger must not outlive it; the first of a process is kept for good.
    """
    trt = flavour.module
    severity = trt.ILogger.Severity

    class CollectingLogger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Called from TensorRT's own threads; appending to a list needs no lock."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []
            self.info: list[str] = []

        def log(self, level: Any, message: str) -> None:
            if level in (severity.INTERNAL_ERROR, severity.ERROR):
                _keep_first(self.errors, message)
            elif level == severity.WARNING:
                _keep_first(self.warnings, message)
            elif level == severity.INFO:
                self.info.append(message)
                del self.info[:-_KEPT]

    logger = CollectingLogger()
    _first.setdefault(flavour.name, logger)
    with _all_lock.here():
        _all.add(logger)
    return logger


def log_here(logger: Any) -> None:
    """From now on `log_error` in this thread is for this logger."""
    _of_this_thread.logger = logger


def log_error(message: str) -> None:
    """An error of samrt's plugin, which does not know which build or engine it is part of.

    For the logger of this thread; in a thread of TensorRT's own, for all.
    """
    logger = getattr(_of_this_thread, "logger", None)
    with _all_lock.here():
        loggers = list(_all) if logger is None else [logger]
    for each in loggers:
        _keep_first(each.errors, message)


def _keep_first(lines: list[str], message: str) -> None:
    if len(lines) < _KEPT:
        lines.append(message)
