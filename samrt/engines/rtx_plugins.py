"""Plugins in TensorRT for RTX, which supports them undocumented: the versions that were tried, and one obstacle.

When its parser meets a plugin's node it opens "libtensorrt_rtx.so" by that name and takes functions from it. The wheel
holds `libtensorrt_rtx.so.1` alone, and a name that is not found ends the process (`std::terminate`). So the name is
made known before, by `libsamrt_rtx_name.so`: an empty library beside the plugin's that has the name and needs the
other.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from samrt.errors import BackendError

# Builds with the plugin were tried in these versions, in continuous integration.
TRIED = ("1.7.1",)

_NAME = "libtensorrt_rtx.so"
NAME_LIBRARY = "libsamrt_rtx_name.so"
_TAKEN_FROM_IT = "getPrivateApi_INTERNAL"


def why_untried(version: str) -> str:
    """Why a version of TensorRT for RTX gets no plugin, and what to install; empty where it was tried."""
    if any(f"{version}.".startswith(f"{tried}.") for tried in TRIED):
        return ""
    return (
        f"samrt's plugin was tried with TensorRT-RTX {', '.join(TRIED)}, not with {version}, whose parser may end the "
        f"process over it: install tensorrt-rtx=={TRIED[-1]}.*"
    )


def make_library_name_known(version: str, plugin: Path) -> None:
    """Make the parser find its own library. Call it with TensorRT for RTX imported, before a graph is parsed.

    Args:
        version: of TensorRT for RTX, as "1.7.1.116".
        plugin: the plugin's library, beside which `libsamrt_rtx_name.so` lies.

    Raises:
        BackendError: that library is missing or of no use.
    """
    if _is_known():
        return
    library = plugin.with_name(NAME_LIBRARY)
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        raise BackendError(
            f"TensorRT-RTX {version} needs {library} to take plugins, and it does not load: {error}; it is compiled "
            "with the plugin and belongs beside it: copy both, or install samrt again"
        ) from error
    if not _is_known():
        raise BackendError(
            f"TensorRT-RTX {version} does not find its own library through {library}, so it cannot take plugins; "
            "report this"
        )


def _is_known() -> bool:
    """Whether opening the library by its name finds one in this process, and in it what the parser wants."""
    try:
        return hasattr(ctypes.CDLL(_NAME, mode=os.RTLD_NOLOAD | os.RTLD_LAZY), _TAKEN_FROM_IT)
    except OSError:
        return False
