"""Streams: samrt's own, and those that callers hand in."""

from __future__ import annotations

from typing import Any

from samrt.device.driver import as_integer, check, current_context, load_core, load_driver, remedy_for
from samrt.errors import BackendError


def new_stream(device: Any) -> Any:
    """A stream of samrt's own as `cuda.core.Stream`; called in the device's primary context.

    Raises:
        BackendError: it cannot be made.
    """
    try:
        return device.create_stream()
    except Exception as error:  # cuda.core's CUDAError is a plain Exception
        raise BackendError(f"CUDA: making a stream failed ({error})", remedy_for(str(error))) from error


def borrow_stream(stream: object, device: int) -> Any:
    """The caller's stream as `cuda.core.Stream`; called in the device's primary context.

    Raises:
        BackendError: it is no stream, or one of another context.
    """
    core, driver = load_core(), load_driver()
    handle = _handle_of(stream)
    # 0 is the legacy default stream too, but an array's producer may take it for "no stream".
    if handle in (0, 1):
        return core.LEGACY_DEFAULT_STREAM
    if handle == 2:
        return core.PER_THREAD_DEFAULT_STREAM
    context = check(driver.cuStreamGetCtx(driver.CUstream(handle)), "asking for the stream's context")
    if int(context) != current_context():
        raise BackendError(
            f"the stream belongs to a CUDA context other than the primary one of GPU {device}; choose the stream's own "
            "GPU as `device`, or with PyCUDA, import pycuda.autoprimaryctx instead of pycuda.autoinit"
        )
    return core.Stream.from_handle(handle)


def _handle_of(stream: object) -> int:
    try:
        handle = _address_of(stream)
    except Exception as error:  # whatever an object's own attributes raise
        raise BackendError(f"{type(stream).__name__} names no CUDA stream ({error}); hand in its address") from error
    if handle is None:
        raise BackendError(
            f"{type(stream).__name__} is not a CUDA stream; hand in its address as int, or an object with "
            "__cuda_stream__"
        )
    if not 0 <= handle < 1 << 64:
        raise BackendError(f"{handle} is not the address of a CUDA stream; hand in what the stream's owner calls it")
    return handle


def _address_of(stream: object) -> int | None:
    number = as_integer(stream)
    if number is not None:
        return number
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        return int(protocol()[1])
    for name in ("handle", "cuda_stream", "ptr"):  # PyCUDA, torch, CuPy
        value = getattr(stream, name, None)
        if value is not None:
            return int(value)
    return None
