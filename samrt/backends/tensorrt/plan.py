"""From a plan file to a TensorRT engine, with what TensorRT says of a failure and a remedy."""

from __future__ import annotations

import functools
import itertools
import mmap
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samrt.engines.flavours import Flavour
from samrt.engines.logger import collecting_logger
from samrt.errors import BackendError, Remedy, SamrtError

REBUILD = "build the engines again on this machine"

# TensorRT-RTX's EngineInvalidityDiagnostics, and what helps against each.
_REMEDIES = {
    "VERSION_MISMATCH": f"it was built by another version of TensorRT-RTX: {REBUILD}",
    "UNSUPPORTED_CC": f"it was built for other compute capabilities than this GPU's: {REBUILD}",
    "OLD_CUDA_DRIVER": "the NVIDIA driver is too old for this TensorRT-RTX: update it",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for this TensorRT-RTX: update it",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory for it: close other programs, or build the "
    "engines for fewer prompts at once",
    "MALFORMED_ENGINE": f"the file is no engine of TensorRT-RTX, or damaged: {REBUILD}",
    "CUDA_ERROR": "CUDA does not work here: check the NVIDIA driver with nvidia-smi",
}


@functools.cache
def runtime_logger(flavour: Flavour) -> Any:
    """The logger of everything that runs, one for all: TensorRT goes on using the first that it was given.

    So it is kept for good, and its errors are told apart by thread.
    """
    logger = collecting_logger(flavour)
    logger.errors = ErrorLines()
    return logger


class ErrorLines:
    """A logger's newest errors, in place of its list, which would be full some day."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, int, str]] = deque(maxlen=500)
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._lines)

    def append(self, line: str) -> None:
        """Keep a line that TensorRT reported in this thread."""
        self._lines.append((next(self._numbers), threading.get_ident(), line.strip()))

    def mark(self) -> int:
        """A number that later lines reach and earlier ones do not."""
        return next(self._numbers)

    def since(self, mark: int, thread: int) -> list[str]:
        """What was reported since `mark` in a thread; where nothing was, in any, as TensorRT has threads of its own."""
        lines = [line for line in self._lines.copy() if line[0] > mark]
        return [text for _, where, text in lines if where == thread] or [text for *_, text in lines]


class Errors:
    """The errors that TensorRT reports about this thread's work from now on."""

    def __init__(self, logger: Any) -> None:
        self._lines: ErrorLines = logger.errors
        self._mark = self._lines.mark()
        self._thread = threading.get_ident()

    def text(self) -> str:
        """All of them in one line, or that there are none."""
        return " | ".join(self._lines.since(self._mark, self._thread)) or "it gave no reason"


@contextmanager
def backend_errors(flavour: Flavour, failure: str) -> Iterator[Errors]:
    """Yields the errors from now on; what TensorRT's bindings raise in the block becomes a BackendError with them."""
    errors = Errors(runtime_logger(flavour))
    try:
        yield errors
    except SamrtError:
        raise
    except Exception as error:
        said = errors.text()
        raise BackendError(f"{flavour.title} {failure}: {error}; {said}", _remedy(f"{error} {said}")) from error


def deserialize(path: Path, flavour: Flavour) -> tuple[Any, Any]:
    """The runtime and the engine of a plan file, in the device whose context is current; drop the engine first.

    Raises:
        BackendError: the file is missing, damaged, of another TensorRT or for another GPU, or memory is short.
    """
    # A TypeError of the bindings where the library returns nothing.
    with backend_errors(flavour, "cannot start"):
        runtime = flavour.module.Runtime(runtime_logger(flavour))
    with _mapped(path) as plan, backend_errors(flavour, f"cannot load {path.name}") as errors:
        if flavour.is_rtx:
            _check_validity(path, flavour, runtime, plan, errors)
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        reason = errors.text()
        raise BackendError(f"{flavour.title} cannot load {path.name}: {reason}", _remedy(reason))
    return runtime, engine


def _check_validity(path: Path, flavour: Flavour, runtime: Any, plan: Any, errors: Errors) -> None:
    trt = flavour.module
    validity, bits = runtime.get_engine_validity(plan)
    if validity != trt.EngineValidity.INVALID:
        return
    diagnostics = trt.EngineInvalidityDiagnostics.__members__
    found = [remedy for name, remedy in _REMEDIES.items() if name in diagnostics and int(diagnostics[name]) & int(bits)]
    reason = "; ".join(found) or errors.text()
    raise BackendError(f"{flavour.title} cannot run {path.name}: {reason}", None if found else _remedy(reason))


def _remedy(reason: str) -> Remedy:
    text = reason.lower()
    if "insufficient for cuda runtime" in text or "cudaerror 35" in text:
        return Remedy(
            "there is no NVIDIA driver, or it is too old: install one, or load with {backend}",
            {"backend": "onnxruntime"},
        )
    if "out of memory" in text or "outofmemory" in text:
        return Remedy("close other models or programs on this GPU")
    return Remedy(REBUILD)


@contextmanager
def _mapped(path: Path) -> Iterator[Any]:
    """The file's bytes, not copied: on a Jetson the CPU and the GPU share their memory."""
    try:
        with path.open("rb") as file:
            plan = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise BackendError(f"cannot read the engine {path}: {error}; {REBUILD}") from error
    with plan:
        yield plan
