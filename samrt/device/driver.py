"""CUDA's driver through NVIDIA's own bindings: imported late, errors with a remedy, and the device's primary context.

Everything runs in that context, the one that torch, CuPy and `pycuda.autoprimaryctx` use as well.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from samrt.errors import BackendError, Remedy
from samrt.processes import this_process

_INSTALL = "pip install 'cuda-core[cu13]', on CUDA 12 (JetPack 6 among it) 'cuda-core[cu12]'"

# What to do in a forked child.
AFTER_FORK = "load the model after the fork, or start processes with multiprocessing's spawn or forkserver method"


def load_driver() -> Any:
    """`cuda.bindings.driver`.

    Raises:
        BackendError: it is not installed.
    """
    return _import("cuda.bindings.driver")


def load_core() -> Any:
    """`cuda.core`.

    Raises:
        BackendError: it is not installed, or too old.
    """
    return _import("cuda.core")


def check(result: tuple[Any, ...], what: str) -> Any:
    """The value in what a driver call returned.

    Raises:
        BackendError: the call failed; `what` names it.
    """
    error, *values = result
    if int(error) == 0:
        return values[0] if values else None
    name = str(getattr(error, "name", error))
    raise BackendError(f"CUDA: {what} failed with {name}", remedy_for(name))


def check_process(process: tuple[int, int], what: str) -> None:
    """Raises BackendError where `what` was made in another process, which this one was forked from."""
    if process != this_process():
        raise BackendError(
            f"{what} before this process was forked, and CUDA does not work in a forked child",
            Remedy(AFTER_FORK),
        )


def remedy_for(name: str) -> Remedy:
    """What to do about the CUDA error of that name."""
    if "OUT_OF_MEMORY" in name:
        return Remedy(
            "close other models or programs on this GPU, or build the engines with a smaller {max_batch} or "
            "{max_prompts}"
        )
    if "NOT_INITIALIZED" in name:
        return Remedy(f"where CUDA was used before this process was forked, {AFTER_FORK}")
    if "NO_DEVICE" in name:
        return Remedy("check the GPU with nvidia-smi, and that CUDA_VISIBLE_DEVICES does not hide it")
    if "INSUFFICIENT_DRIVER" in name or "SYSTEM_DRIVER_MISMATCH" in name:
        return Remedy("update the NVIDIA driver")
    return Remedy("restart this process, and check the GPU with nvidia-smi")


@contextmanager
def primary_context(device: int) -> Iterator[Any]:
    """Make the device's primary context current in this thread, then whichever was before; yields `cuda.core.Device`.

    Raises:
        BackendError: the context cannot be created.
    """
    driver = load_driver()
    before = check(driver.cuCtxGetCurrent(), "cuCtxGetCurrent")
    try:
        of_thread = load_core().Device(device)
        of_thread.set_current()
    except Exception as error:  # cuda.core has errors of its own, some of them plain Exceptions
        raise BackendError(f"GPU {device} cannot be used: {error}; check it with nvidia-smi") from error
    try:
        yield of_thread
    finally:
        driver.cuCtxSetCurrent(before)


def context_of_pointer(ptr: int) -> int | None:
    """Handle of the context that a device address belongs to; None where it belongs to none, as pooled memory."""
    driver = load_driver()
    error, context = driver.cuPointerGetAttribute(driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_CONTEXT, ptr)
    return (int(context) or None) if int(error) == 0 and context is not None else None


def current_context() -> int:
    """Handle of this thread's current context, 0 for none."""
    return int(check(load_driver().cuCtxGetCurrent(), "cuCtxGetCurrent"))


def as_integer(value: object) -> int | None:
    """An integer of Python or NumPy as int; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _import(name: str) -> Any:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise BackendError(f"CUDA's Python bindings cannot be imported ({error}); install them: {_INSTALL}") from error
    if name == "cuda.core" and not hasattr(module, "Device"):
        raise BackendError(f"cuda-core {module.__version__} is too old, samrt needs 1.0.1 or newer; {_INSTALL}")
    return module
