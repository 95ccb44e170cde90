"""Two folders exchange their names in one step, where the system can: no other process sees neither or half of them."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

_AT_FDCWD = -100  # linux/fcntl.h
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS


def exchange(one: Path, other: Path) -> bool:
    """Let two names exchange what they name; False where this system or this file system cannot."""
    rename = _rename()
    return rename is not None and rename(os.fsencode(one), os.fsencode(other)) == 0


@functools.cache
def _rename() -> Callable[[bytes, bytes], int] | None:
    """The system's call with two paths; 0 is success."""
    if not sys.platform.startswith(("linux", "darwin")):
        return None
    library = ctypes.CDLL(None)
    try:
        function = library["renameat2" if sys.platform.startswith("linux") else "renamex_np"]
    except AttributeError:  # glibc before 2.28
        return None
    if sys.platform == "darwin":
        return lambda one, other: int(function(one, other, ctypes.c_uint(_EXCHANGE)))
    return lambda one, other: int(function(_AT_FDCWD, one, _AT_FDCWD, other, ctypes.c_uint(_EXCHANGE)))
