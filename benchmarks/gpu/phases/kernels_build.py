"""Selects the kernel library to measure: a named one, else one compiled here, else the one in the checkout.

The last is used also if compiling fails. Then the result says what failed, and that a library compiled before was
measured.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from driver import Driver
from kernel_build import NoCompilerError, build
from work import NotHereError, Work

from samrt.errors import BackendError
from samrt.kernels.library import KERNELS_VARIABLE, LIBRARY_FOLDER, load_kernels

_TOLD = 1500


def run(work: Work) -> None:
    capability = None if work.smoke else str(Driver().describe()["compute_capability"])
    named, installed = os.environ.get(KERNELS_VARIABLE), LIBRARY_FOLDER / "libsamrt_kernels.so"
    sources: dict[str, Callable[[], Path]] = {}
    if named:
        sources[f"named by {KERNELS_VARIABLE}"] = lambda: Path(named)
    if capability is not None:
        sources["compiled from this checkout"] = lambda: _compile(work, capability)
        if installed.is_file():
            sources["compiled elsewhere, before this run"] = lambda: installed
    if not sources:
        raise NotHereError(f"kernels need a GPU, or the tests' library for the CPU, named by {KERNELS_VARIABLE}")
    failed: dict[str, Exception] = {}
    for origin, source in sources.items():
        try:
            _take(work, source(), origin, capability, failed)
        except (NoCompilerError, RuntimeError, subprocess.TimeoutExpired) as error:
            failed[origin] = error
        else:
            return
    text = "; ".join(f"{origin}: {error}" for origin, error in failed.items())
    if all(isinstance(error, NoCompilerError) for error in failed.values()):
        raise NotHereError(f"{text}; {installed} does not exist, and {KERNELS_VARIABLE} is not set")
    raise RuntimeError(text)


def _compile(work: Work, capability: str) -> Path:
    began = time.monotonic()
    library = build(work.folder / "kernels", capability.replace(".", ""), work.seconds_left)
    work.record("seconds", value=round(time.monotonic() - began, 1))
    return library


def _take(work: Work, path: Path, origin: str, capability: str | None, failed: dict[str, Exception]) -> None:
    """Record the library. Raises BackendError where it cannot be used on this device."""
    kernels = load_kernels(path)
    if capability is not None and not kernels.runs_on(capability):
        made_for = ", ".join(kernels.architectures)
        raise BackendError(f"{path} is compiled for {made_for}, but this device is {capability}")
    content = kernels.path.read_bytes()
    found = {
        "path": str(kernels.path),
        "origin": origin,
        "instead of": {source: f"{error}"[:_TOLD] for source, error in failed.items()},
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "architectures": list(kernels.architectures),
        "tiles": list(kernels.attention_tiles()),
    }
    work.record("library", value=found)
