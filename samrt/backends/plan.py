"""From a plan file to a TensorRT engine, with what TensorRT says of a failure and a remedy."""

from __future__ import annotations

import functools
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samrt.errors import BackendError
from samrt.tensorrt.flavours import Flavour
from samrt.tensorrt.logger import collecting_logger

REBUILD = "build the engine again on this machine with `samrt build`"

# TensorRT-RTX's EngineInvalidityDiagnostics, and what helps against each.
_REMEDIES = {
    "VERSION_MISMATCH": f"it was built by another version of TensorRT-RTX: {REBUILD}",
    "UNSUPPORTED_CC": f"it was built for other compute capabilities than this GPU's: {REBUILD}",
    "OLD_CUDA_DRIVER": "the NVIDIA driver is too old for this TensorRT-RTX: update it",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for this TensorRT-RTX: update it",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory for it: close other programs, or build it with smaller "
    "limits (`samrt build --max-prompts`)",
    "MALFORMED_ENGINE": f"the file is no engine of TensorRT-RTX, or damaged: {REBUILD}",
    "CUDA_ERROR": "CUDA does not work here: check the NVIDIA driver with nvidia-smi",
}


@functools.cache
def runtime_logger(flavour: Flavour) -> Any:
    """The logger of everything that runs, kept for good: TensorRT may go on using the first that it was given."""
    return collecting_logger(flavour)


class Errors:
    """The errors that TensorRT reported since this was made."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        # The logger keeps a bounded number of lines; old ones make room.
        if len(logger.errors) > 500:
            del logger.errors[:]
        self._start = len(logger.errors)

    def text(self) -> str:
        """All of them in one line, or that there are none."""
        return " | ".join(line.strip() for line in self._logger.errors[self._start :]) or "it gave no reason"


def deserialize(path: Path, flavour: Flavour) -> tuple[Any, Any]:
    """The runtime and the engine of a plan file, in the device whose context is current; drop the engine first.

    Raises:
        BackendError: the file is missing, damaged, of another TensorRT or for another GPU, or memory is short.
    """
    trt = flavour.module
    logger = runtime_logger(flavour)
    errors = Errors(logger)
    try:
        runtime = trt.Runtime(logger)
    except Exception as error:  # a TypeError of the bindings where the library returns nothing
        raise BackendError(f"{flavour.title} cannot start: {errors.text()}; {_remedy(errors.text())}") from error
    with _mapped(path) as plan:
        if flavour.is_rtx:
            _check_validity(path, flavour, runtime, plan, errors)
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        reason = errors.text()
        raise BackendError(f"{flavour.title} cannot load {path.name}: {reason}; {_remedy(reason)}")
    return runtime, engine


def _check_validity(path: Path, flavour: Flavour, runtime: Any, plan: Any, errors: Errors) -> None:
    trt = flavour.module
    validity, bits = runtime.get_engine_validity(plan)
    if validity != trt.EngineValidity.INVALID:
        return
    diagnostics = trt.EngineInvalidityDiagnostics.__members__
    found = [remedy for name, remedy in _REMEDIES.items() if name in diagnostics and int(diagnostics[name]) & int(bits)]
    reason = "; ".join(found) or f"{errors.text()}; {_remedy(errors.text())}"
    raise BackendError(f"{flavour.title} cannot run {path.name}: {reason}")


def _remedy(reason: str) -> str:
    text = reason.lower()
    if "insufficient for cuda runtime" in text or "cudaerror 35" in text:
        return "there is no NVIDIA driver, or it is too old: install one, or load with backend='onnxruntime'"
    if "out of memory" in text or "outofmemory" in text:
        return "close other models or programs on this GPU"
    return REBUILD


@contextmanager
def _mapped(path: Path) -> Iterator[Any]:
    """The file's bytes, not copied: on a Jetson the CPU and the GPU share their memory."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
            yield plan
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise BackendError(f"cannot read the engine {path}: {error}; {REBUILD}") from error
