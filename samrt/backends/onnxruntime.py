"""ONNX Runtime on the CPU: the one backend that every machine has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.bundle.contract import Tensor
from samrt.errors import BackendError

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
    """One ONNX graph in a session of its own."""

    max_lengths: Mapping[str, int] = _MAX_LENGTHS

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Load `path` and the external data that it refers to; `threads` compute, None: one per core.

        Raises:
            BackendError: ONNX Runtime is not installed or refuses the file.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(
                f"ONNX Runtime cannot be imported ({error}); install it with `pip install onnxruntime`"
            ) from error
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path),
                _session_options(threads),
                providers=["CPUExecutionProvider"],
                disabled_optimizers=_SLOWER_FUSIONS,
            )
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise BackendError(f"ONNX Runtime cannot load {path}: {error}; export the checkpoint again") from error
        self.inputs = tuple(map(_tensor, self._session.get_inputs()))
        self.outputs = tuple(map(_tensor, self._session.get_outputs()))

    def run(self, inputs: Mapping[str, Any], on_device: Collection[str] = ()) -> dict[str, NDArray[Any]]:
        """Compute all outputs; there is no device here to leave any of them on.

        Raises:
            BackendError: ONNX Runtime failed, or the engine is closed.
        """
        session = self._session
        if session is None:
            raise BackendError("this model is closed; load the bundle again")
        names = [tensor.name for tensor in self.outputs]
        try:
            return dict(
                zip(names, session.run(names, {name: np.asarray(array) for name, array in inputs.items()}), strict=True)
            )
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed: {error}; check the free memory and the inputs") from error

    def close(self) -> None:
        self._session = None


def _session_options(threads: int | None) -> Any:
    """Options of every session, chosen for a low peak of memory."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Errors come as exceptions; ONNX Runtime's warnings tell users of a verified graph nothing that they can change.
    options.log_severity_level = 3
    # A memory pattern reserves every intermediate result at once: 0.7 GiB more for a ViT-B, and no faster.
    options.enable_mem_pattern = False
    # 0 leaves the number to ONNX Runtime.
    options.intra_op_num_threads = threads or 0
    return options


def _tensor(node: Any) -> Tensor:
    # An axis of unknown length has a name or None.
    shape = tuple(n if isinstance(n, int) else str(n) for n in node.shape)
    return Tensor(node.name, _DTYPES.get(node.type, node.type), shape)
