"""What runs a bundle: one small protocol for a graph, and a session of two of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from samrt.backends.onnxruntime import OnnxRuntimeEngine
from samrt.bundle.contract import IMAGE_ENCODER, MASK_DECODER, ROLES, Graph, Tensor
from samrt.bundle.file_state import FileState, check_unchanged
from samrt.bundle.folder import Bundle
from samrt.bundle.json_reader import is_size
from samrt.device.session import DeviceOptions
from samrt.engines.flavours import import_flavour
from samrt.engines.plugin import register_plugin
from samrt.engines.selection import Choice, choose
from samrt.engines.sets import EngineSet
from samrt.errors import BundleError, InputError, Remedy, SamrtError
from samrt.processes import ForkSafeLock
from samrt.visible import visible

# More are slower by far, and some thousands never start.
_THREADS_PER_CORE = 8

_logger = logging.getLogger(__name__)


class Engine(Protocol):
    """One loaded graph: named arrays in, named arrays out. `run` may be called from several threads."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def max_lengths(self) -> Mapping[str, int]:
        """The longest that a dynamic axis may be, by its name; axes that are not there have no limit."""

    def run(self, inputs: Mapping[str, Any], on_device: Collection[str] = ()) -> dict[str, Any]:
        """Compute all outputs: as NumPy arrays, or as `DeviceArray` where named in `on_device` and there is a device.

        Raises BackendError where the backend fails.
        """

    def close(self) -> None:
        """Give the memory back. May be called again; `run` fails afterwards."""


class Session:
    """A bundle's graphs by role, opened together: on a GPU they share one stream. Close it, or use `with`."""

    def __init__(self, choice: Choice, engines: Mapping[str, Engine], closing: ExitStack) -> None:
        self.choice = choice
        self.encoder = engines[IMAGE_ENCODER]
        self.decoder = engines[MASK_DECODER]
        self.is_closed = False
        self._closing = closing
        # Of two threads that close, neither may destroy the stream while the other still waits for an engine.
        self._lock = ForkSafeLock()

    def close(self) -> None:
        """Give all memory back. May be called again, also from another thread: it returns when all is given back."""
        with self._lock.here():
            self.is_closed = True
            self._closing.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_session(
    bundle: Bundle,
    backend: str = "auto",
    options: DeviceOptions | None = None,
    *,
    precision: str | None = None,
    threads: int | None = None,
) -> Session:
    """Choose what runs the bundle, load it, and compare inputs and outputs with the manifest.

    Arguments as `samrt.load`.

    Raises:
        InputError: `threads` is not a positive whole number.
        BackendError: as `choose`; or the backend is not installed, or refuses a file.
        BundleError: a file is not the graph that the manifest describes, or not the engine that was built.
    """
    options = options or DeviceOptions()
    check_threads(threads)
    choice = choose(bundle, backend, options.device, precision)
    for reason in choice.skipped:
        _logger.info("skipped %s", reason)
    _logger.info("running %s with %s", bundle.path, visible(str(choice)))
    if choice.engines is None:
        return open_onnxruntime(bundle, choice, threads)
    return open_engines(choice, choice.engines, options)


def check_threads(threads: int | None) -> None:
    """Raises InputError where `samrt.load` could not take this number of threads."""
    most = _THREADS_PER_CORE * (os.cpu_count() or 1)
    if threads is not None and (not is_size(threads) or threads > most):
        raise InputError(
            f"threads must be a whole number from 1 to {most} on this machine, not {threads!r}",
            Remedy("leave {threads} out to take one per usable core"),
        )


def open_onnxruntime(bundle: Bundle, choice: Choice, threads: int | None = None) -> Session:
    """The session of `choice.form` in ONNX Runtime; raises as `open_session`."""
    graphs = choice.form.graphs
    states = {bundle.folder / name: state for name, state in bundle.states.items()}
    again = partial(bundle.compare_again, choice.form)

    def open_graphs() -> Iterator[tuple[str, Engine]]:
        # Before the first is loaded, whose threads would then compete with the check of the next.
        files = [bundle.graph_file(graphs[role]) for role in ROLES]
        for role, file in zip(ROLES, files, strict=True):
            yield role, OnnxRuntimeEngine(file, threads, again)

    return _open(choice, open_graphs(), states, ExitStack())


def open_engines(choice: Choice, engines: EngineSet, options: DeviceOptions) -> Session:
    """The session of the engines that were chosen, on the GPU that they were built for; raises as `open_session`."""
    from samrt.backends.tensorrt.engine import TensorRtEngine
    from samrt.device.session import DeviceSession

    built = engines.manifest.engines
    flavour = import_flavour(choice.backend)
    if engines.manifest.plugin is not None:
        register_plugin(flavour)
    opened = ExitStack()
    device = DeviceSession(options)
    opened.callback(device.close)
    states: dict[Path, FileState] = {}

    def open_graphs() -> Iterator[tuple[str, Engine]]:
        for role in ROLES:
            plan, states[plan] = engines.verified(role)
            sha256 = built[role].content.sha256
            yield role, TensorRtEngine(plan, built[role].graph, flavour, device, options.cuda_graphs, sha256)

    return _open(choice, open_graphs(), states, opened)


def _open(
    choice: Choice, graphs: Iterator[tuple[str, Engine]], states: Mapping[Path, FileState], opened: ExitStack
) -> Session:
    """Open the graphs, by role, and compare them with the manifest; what `opened` holds is closed last, or on failure.

    What was loaded is what was hashed: files whose `states` are the same before and after were not replaced in between.
    """
    engines: dict[str, Engine] = {}
    with opened:
        try:
            for role, engine in graphs:
                engines[role] = engine
                opened.callback(engine.close)
                _check(choice.form.graphs[role], engine)
        except SamrtError:
            check_unchanged(states)
            raise
        check_unchanged(states)
        return Session(choice, engines, opened.pop_all())


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
