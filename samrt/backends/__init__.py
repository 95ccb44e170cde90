"""What runs a bundle's graphs: one small protocol, and the table of those that implement it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from samrt.bundle import Bundle
from samrt.errors import BackendError, BundleError
from samrt.manifest import Graph, Tensor


class Engine(Protocol):
    """One loaded graph: named arrays in, named arrays out. `run` may be called from several threads."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute all outputs. Raises BackendError where the backend fails."""

    def close(self) -> None:
        """Give the memory back. May be called again; `run` fails afterwards."""


def _open_onnxruntime(path: Path) -> Engine:
    from samrt.backends.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path)


# In the order in which "auto" prefers them.
_BACKENDS: dict[str, Callable[[Path], Engine]] = {"onnxruntime": _open_onnxruntime}


def choose_backend(name: str = "auto") -> str:
    """The backend that `name` stands for: "auto" is ONNX Runtime on the CPU.

    Raises:
        BackendError: there is no backend of this name.
    """
    if name == "auto":
        return next(iter(_BACKENDS))
    if name not in _BACKENDS:
        raise BackendError(f"there is no backend {name!r}; choose one of auto, {', '.join(_BACKENDS)}")
    return name


def open_engine(bundle: Bundle, graph_name: str, backend: str) -> Engine:
    """Load the graph `graph_name` ("encoder" or "decoder") and compare its inputs and outputs with the manifest.

    Raises:
        BackendError: the backend is unknown, not installed, or refuses the file.
        BundleError: the file is not the graph that the manifest describes.
    """
    graph = bundle.manifest.graphs[graph_name]
    engine = _BACKENDS[choose_backend(backend)](bundle.path_of(graph.file))
    try:
        _check(graph, engine)
    except BundleError:
        engine.close()
        raise
    return engine


def _check(graph: Graph, engine: Engine) -> None:
    for kind, declared, actual in (("input", graph.inputs, engine.inputs), ("output", graph.outputs, engine.outputs)):
        found = {tensor.name: tensor for tensor in actual}
        if found.keys() != {tensor.name for tensor in declared}:
            raise BundleError(
                f"{graph.file} has the {kind}s {', '.join(found)}, the manifest says "
                f"{', '.join(tensor.name for tensor in declared)}; export the checkpoint again"
            )
        for tensor in declared:
            if not _agree(tensor, found[tensor.name]):
                raise BundleError(
                    f"{graph.file} has the {kind} {found[tensor.name]}, the manifest says {tensor}; "
                    "export the checkpoint again"
                )


def _agree(declared: Tensor, actual: Tensor) -> bool:
    if declared.dtype != actual.dtype or len(declared.shape) != len(actual.shape):
        return False
    # A backend may know a fixed length as dynamic only, never another length, nor a fixed one where any is promised.
    return all(isinstance(a, str) or a == d for d, a in zip(declared.shape, actual.shape, strict=True))
