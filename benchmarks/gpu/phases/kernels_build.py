"""The kernel library that is measured: one that is named, else compiled here, else the one in the checkout."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from driver import Driver
from kernel_build import NoCompilerError, build
from work import NotHereError, Work

from samrt.kernels import KERNELS_VARIABLE, LIBRARY_FOLDER, load_kernels

_MARGIN_S = 2


def run(work: Work) -> None:
    named = os.environ.get(KERNELS_VARIABLE)
    if named:
        _take(work, Path(named), f"named by {KERNELS_VARIABLE}")
        return
    if work.smoke:
        raise NotHereError(f"kernels run on a GPU, or where {KERNELS_VARIABLE} names the tests' library for the host")
    architecture = Driver().describe()["compute_capability"].replace(".", "")
    began = time.monotonic()
    try:
        library = build(work.folder / "kernels", architecture, work.seconds_left - _MARGIN_S)
    except NoCompilerError as reason:
        installed = LIBRARY_FOLDER / "libsamrt_kernels.so"
        if not installed.is_file():
            raise NotHereError(f"{reason}, {installed} is not there, and {KERNELS_VARIABLE} is not set") from None
        _take(work, installed, f"compiled elsewhere, before this run: {reason} here")
        return
    work.record("seconds", value=round(time.monotonic() - began, 1))
    _take(work, library, "compiled from this checkout")


def _take(work: Work, path: Path, origin: str) -> None:
    kernels = load_kernels(path)
    content = kernels.path.read_bytes()
    found = {
        "path": str(kernels.path),
        "origin": origin,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "architectures": list(kernels.architectures),
        "tiles": list(kernels.attention_tiles()),
    }
    work.record("library", value=found)
