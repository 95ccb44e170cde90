"""Runs the checks of tests/kernels on a GPU. CI runs the same checks on the kernels' source, compiled for the CPU.

Importing this puts tests/kernels on the path; `reference`, `guarded_memory` and the others are from there.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
from pathlib import Path
from typing import Any

from driver import Driver

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "kernels"))

# Each has `CHECKS`: by name, functions of the library and a `guarded_memory.Device` that raise what is wrong.
MODULES = ("check_attention", "check_image", "check_masks")


def device(driver: Driver | None) -> Any:
    """Where the checks get their memory; the host's without a driver."""
    from guarded_memory import Device, host_device

    if driver is None:
        return host_device()

    def upload(address: int, data: bytes) -> None:
        driver.upload(address, data)
        driver.wait(0)  # the copy may come to its end after the call

    return Device(driver.allocate, driver.release, upload, driver.download)


def memory(driver: Driver | None) -> Any:
    """A `guarded_memory.GuardedMemory` there, a context manager."""
    from guarded_memory import GuardedMemory

    return GuardedMemory(device(driver))


def names(module: str) -> list[str]:
    """The checks of a module."""
    return list(importlib.import_module(module).CHECKS)


def is_not_installed(error: ImportError) -> bool:
    """Whether an import failed because a package is not installed, not because an installed package is broken."""
    return bool(error.name) and importlib.util.find_spec(str(error.name).partition(".")[0]) is None


def run(module: str, name: str, kernels: Any, where: Any) -> None:
    """Run one check. Raises its error, with the last line that it printed."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            importlib.import_module(module).CHECKS[name](kernels, where)
    except Exception as error:
        last = "".join(said.getvalue().splitlines()[-1:])
        raise RuntimeError(f"{name}: {last}: {type(error).__name__}: {error}") from error
