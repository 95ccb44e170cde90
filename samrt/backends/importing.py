"""The one place that imports ONNX Runtime: its telemetry is off unless the user turned it on."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from types import ModuleType

from samrt.processes import no_fork_meanwhile

# ONNX Runtime 1.29 and later for Linux reads it when it is imported. Without it, it writes to $TMPDIR and
# ~/.cache/Microsoft, and looks up hosts.
TELEMETRY = "ORT_DISABLE_TELEMETRY"
# What it takes for "off"; all else is "on".
_OFF = ("1", "true", "yes", "on")


def import_onnxruntime() -> ModuleType:
    """The module, imported with telemetry off where the environment does not say otherwise.

    Raises whatever an import raises.
    """
    _set_up()
    # As in samrt/__init__.py.
    with no_fork_meanwhile():
        import onnxruntime

    return onnxruntime  # type: ignore[no-any-return]


@functools.cache
def _set_up() -> None:
    # A program that imported it before did so with telemetry on.
    default = "" if "onnxruntime" in sys.modules else "1"
    on = os.environ.get(TELEMETRY, default).lower() not in _OFF
    os.environ.setdefault(TELEMETRY, "1")
    if on and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_end_without_exit_handlers)


def _end_without_exit_handlers() -> None:
    """Let a forked child end once Python has: the exit handler of the telemetry waits for threads of the parent."""
    library = ctypes.CDLL(None)
    # The last handler that was added is the first to be called, with the exit status.
    if hasattr(library, "on_exit"):
        library.on_exit(library._exit, None)
