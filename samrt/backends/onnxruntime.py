"""ONNX Runtime on the CPU: the one backend that every machine has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.backends.importing import import_onnxruntime
from samrt.bundle.contract import Tensor
from samrt.bundle.file_state import FileState, check_unchanged
from samrt.cpus import default_threads
from samrt.errors import BackendError
from samrt.processes import ForkSafeLock, keep_while_alive, no_fork_meanwhile, this_process

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


# Prompts in one call of the decoder. Each costs up to 100 MB there, and a batch saves no time per prompt.
_MAX_LENGTHS = {"batch": 1, "prompts": 4}

# The fused residual + LayerNorm kernel of the CPU provider takes several times as long as the two it replaces.
_SLOWER_FUSIONS = ["SkipLayerNormFusion"]


class OnnxRuntimeEngine:
    """One ONNX graph in a session of its own; in a forked child, in another session, opened on first use there."""

    max_lengths: Mapping[str, int] = _MAX_LENGTHS

    def __init__(
        self, path: Path, threads: int | None = None, compare_again: Callable[[], Mapping[Path, FileState]] = dict
    ) -> None:
        """Load `path` and the external data that it refers to.

        Args:
            path: the graph.
            threads: that compute; None: `default_threads`.
            compare_again: called before a forked child opens the graph again, for the states of its files; raises where
                they are others by now.

        Raises:
            BackendError: ONNX Runtime is not installed or refuses the file.
        """
        # The program may change its working folder before it forks.
        self._path = path.absolute()
        self._threads = threads
        self._compare_again = compare_again
        self._lock = ForkSafeLock()
        self._opened: _Opened | None = self._open()
        session = self._opened.session
        try:
            self.inputs = tuple(map(_tensor, session.get_inputs()))
            self.outputs = tuple(map(_tensor, session.get_outputs()))
        except UnicodeDecodeError as error:  # in a name of it or of an axis
            raise BackendError(
                f"{path} has an input or an output whose name is not UTF-8; export the checkpoint again"
            ) from error

    def run(self, inputs: Mapping[str, Any], on_device: Collection[str] = ()) -> dict[str, NDArray[Any]]:
        """Compute all outputs; there is no device here to leave any of them on.

        Raises:
            BackendError: ONNX Runtime failed, or the engine is closed.
            BundleError: this is a forked child's first call, and the graph's files are gone or were changed.
        """
        session = self._session_here()
        names = [tensor.name for tensor in self.outputs]
        try:
            return dict(
                zip(names, session.run(names, {name: np.asarray(array) for name, array in inputs.items()}), strict=True)
            )
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed: {error}; check the free memory and the inputs") from error

    def close(self) -> None:
        """Give the memory back. A forked child gives back only what it opened itself."""
        with self._lock.here():
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.release()

    def _session_here(self) -> Any:
        opened = self._opened
        if opened is None or opened.process != this_process():
            with self._lock.here():
                opened = self._opened
                if opened is None:
                    raise BackendError("this model is closed; load the bundle again")
                if opened.process != this_process():
                    states = self._compare_again()
                    opened = self._open()
                    check_unchanged(states)
                    self._opened = opened
        return opened.session

    def _open(self) -> _Opened:
        session = _open_session(self._path, self._threads)
        return _Opened(session, this_process(), keep_while_alive(self, session))


@dataclass(frozen=True)
class _Opened:
    """A session, the process whose threads it has, and what gives its memory back."""

    session: Any
    process: tuple[int, int]
    release: Callable[[], object]


def _open_session(path: Path, threads: int | None) -> Any:
    try:
        onnxruntime = import_onnxruntime()
    except ImportError as error:
        raise BackendError(
            f"ONNX Runtime cannot be imported ({error}); install it with `pip install onnxruntime`"
        ) from error
    try:
        # What of ONNX Runtime is the process's own is locked while a session is made.
        with no_fork_meanwhile():
            return onnxruntime.InferenceSession(
                str(path),
                _session_options(threads),
                providers=["CPUExecutionProvider"],
                disabled_optimizers=_SLOWER_FUSIONS,
                enable_fallback=0,  # it prints, and opens the same again
            )
    except Exception as error:  # ONNX Runtime's own exceptions have no common base
        raise BackendError(f"ONNX Runtime cannot load {path}: {error}; export the checkpoint again") from error


def _session_options(threads: int | None) -> Any:
    """Options of every session, chosen for a low peak of memory."""
    options = import_onnxruntime().SessionOptions()
    # Fatal only: errors come as exceptions, and are printed beside those at a lower level. ONNX Runtime's warnings tell
    # users of a verified graph nothing that they can change.
    options.log_severity_level = 4
    # A memory pattern reserves every intermediate result at once: 0.7 GiB more for a ViT-B, and no faster.
    options.enable_mem_pattern = False
    # Always a number: with 0, ONNX Runtime counts the machine's cores and pins a thread to each, also to those that a
    # container or taskset forbids.
    options.intra_op_num_threads = threads or default_threads()
    return options


def _tensor(node: Any) -> Tensor:
    # An axis of unknown length has a name or None.
    shape = tuple(n if isinstance(n, int) else str(n) for n in node.shape)
    return Tensor(node.name, _DTYPES.get(node.type, node.type), shape)
