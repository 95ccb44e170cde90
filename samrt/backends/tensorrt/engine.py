"""Engines of TensorRT and TensorRT-RTX on an NVIDIA GPU."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from samrt.backends.tensorrt.buffers import Buffers, Given, read_input
from samrt.backends.tensorrt.cache import JitCache
from samrt.backends.tensorrt.graphs import Captured, GraphCache, Key, capture
from samrt.backends.tensorrt.plan import Errors, backend_errors, deserialize, runtime_logger
from samrt.backends.tensorrt.ranges import InputRange, Shape, check_names, check_shapes, max_lengths, named_axes
from samrt.bundle.contract import Graph, Tensor
from samrt.device.memory import Memory
from samrt.device.session import DeviceSession
from samrt.engines.flavours import Flavour
from samrt.errors import BackendError, InputError
from samrt.processes import keep_while_alive
from samrt.visible import visible

_log = logging.getLogger(__name__)

_LEGACY_STREAM, _PER_THREAD_STREAM = 1, 2
_LEFT_TO_RTX = "left to TensorRT-RTX"


class TensorRtEngine:
    """One plan in one execution context, with buffers for the largest shapes that it takes, allocated once.

    `run` is synchronous and may be called from several threads; the session's lock lets one call at a time onto the
    stream. Host arrays pass through page-locked staging memory. With CUDA graphs the addresses that TensorRT works on
    are fixed, so arrays in GPU memory are copied there within the GPU; without graphs it reads them where they lie.

    TensorRT's graphs are captured here, per shape, when a shape comes the second time; TensorRT-RTX does it itself.

    Attributes:
        inputs, outputs: names, dtypes and shapes; dynamic axes have the names that the bundle's graph gives them.
        cuda_graphs: "on"; "left to TensorRT-RTX", which was asked for them and does not tell; "off"; or "off: " and the
            reason why they are not used although they were asked for.
    """

    def __init__(
        self,
        plan: Path,
        graph: Graph,
        flavour: Flavour,
        session: DeviceSession,
        cuda_graphs: bool = True,
        sha256: str | None = None,
    ) -> None:
        """Load `plan`, an engine of `flavour` built from `graph`, into the session's GPU.

        `sha256` of the plan, where the caller knows it, saves reading a plan of TensorRT-RTX once more.

        Raises:
            BackendError: the plan is missing, damaged, or not for this TensorRT and this GPU, or memory is short.
        """
        self._flavour = flavour
        self._session = session
        self._buffers = Buffers(session)
        self._activations: Memory | None = None
        self._graphs = GraphCache()
        self._context: Any = None
        # What the context was given last; None where that failed half-way.
        self._shapes: Key | None = None
        self._addresses: dict[str, int] | None = None
        self._jit: JitCache | None = None
        self.cuda_graphs = _graphs_state(cuda_graphs, flavour, session)
        with session.lock:
            session.check_open()
            with session.current():
                self._runtime, self._engine = deserialize(plan, flavour)
                self._kept = [keep_while_alive(self, each) for each in (self._runtime, self._engine)]
                try:
                    with backend_errors(flavour, f"cannot set up {plan.name}") as errors:
                        self._describe(graph)
                        self._context = self._first_context(plan, sha256, errors)
                        self._kept.append(keep_while_alive(self, self._context))
                        self._allocate()
                except BaseException:
                    self.close()
                    raise

    @property
    def max_lengths(self) -> dict[str, int]:
        """The most that one call takes, by the name of the axis: "batch", or "prompts" and "points"."""
        return max_lengths(self._ranges)

    def run(self, inputs: Mapping[str, Any], on_device: Collection[str] = ()) -> dict[str, Any]:
        """Compute all outputs and wait for them.

        Args:
            inputs: NumPy arrays, or arrays in GPU memory (`DeviceArray`, or anything with `__cuda_array_interface__`
                or DLPack), of the dtypes and within the shapes of `inputs`, C-contiguous on the GPU.
            on_device: names of the outputs that stay in GPU memory; each is a new `DeviceArray`.

        Returns:
            Each output as a new array; NumPy's unless it is named in `on_device`.

        Raises:
            InputError: an input is missing or unknown, is no array, has another dtype, or is larger than the engine was
                built for.
            BackendError: the engine or its session is closed, or TensorRT or CUDA failed.
        """
        with self._session.lock:
            self._session.check_open()
            if self._context is None:
                raise BackendError("this model is closed; load the bundle again")
            unknown = set(on_device) - {tensor.name for tensor in self.outputs}
            if unknown:
                raise InputError(f"the engine has no output {', '.join(sorted(unknown))}")
            check_names(inputs, self._ranges)
            with self._session.current():
                given = [read_input(tensor, inputs[tensor.name], self._session) for tensor in self.inputs]
                check_shapes({each.name: each.shape for each in given}, self._ranges)
                try:
                    with backend_errors(self._flavour, "failed"):
                        return self._compute(given, on_device)
                except BaseException:
                    # What is on the stream may still read what the caller is about to free.
                    with suppress(BackendError):
                        self._session.synchronize()
                    raise

    def close(self) -> None:
        """Give back the engine and all memory, but not the outputs handed out. May be called again."""
        with self._session.lock:
            if self._engine is None or self._session.is_inherited:
                return
            with self._session.current():
                try:
                    with suppress(BackendError):
                        self._session.synchronize()
                    if self._jit is not None and self._context is not None:
                        self._jit.save()
                finally:
                    self._graphs.close()
                    self._context = self._jit = None
                    self._engine = None
                    self._runtime = None
                    while self._kept:
                        self._kept.pop()()
                    if self._activations is not None:
                        self._activations.close()
                    self._buffers.close()

    def _describe(self, graph: Graph) -> None:
        """Read names, dtypes and ranges off the engine."""
        trt, engine = self._flavour.module, self._engine
        ranges, outputs = [], []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name
            shape = tuple(engine.get_tensor_shape(name))
            tensor = Tensor(name, dtype, named_axes(graph, name, shape))
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                low = high = shape
                # Only of what varies does a profile have to say anything.
                if -1 in shape:
                    low, _, high = (tuple(bound) for bound in engine.get_tensor_profile_shape(name, 0))
                ranges.append(InputRange(tensor, low, high))
            else:
                outputs.append(tensor)
        self._ranges = tuple(ranges)
        self.inputs = tuple(each.tensor for each in ranges)
        self.outputs = tuple(outputs)

    def _first_context(self, plan: Path, sha256: str | None, errors: Errors) -> Any:
        if self._flavour.is_rtx:
            trt = self._flavour.module
            config = self._engine.create_runtime_config()
            if self.cuda_graphs == _LEFT_TO_RTX:
                config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self._jit = JitCache(config, plan, self._session.gpu, sha256)
            context = self._engine.create_execution_context(config)
        else:
            context = self._context_on_shared_memory()
        if context is None:
            raise BackendError(
                f"{self._flavour.title} cannot make an execution context: {errors.text()}; close other models or "
                "programs on this GPU, or build the engine with smaller limits"
            )
        return context

    def _context_on_shared_memory(self) -> Any:
        # All contexts of the engine, one for each graph, share this memory: they never run at the same time.
        if self._activations is None:
            self._activations = self._session.allocate(self._engine.device_memory_size_v2)
        strategy = self._flavour.module.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy)
        if context is not None:
            context.set_device_memory(self._activations.ptr, self._activations.size)
        return context

    def _allocate(self) -> None:
        for each in self._ranges:
            if not self._context.set_input_shape(each.tensor.name, each.maximum):
                raise BackendError(f"{self._flavour.title} refuses its own largest {each.tensor.name}; build it again")
        largest = {each.tensor.name: each.maximum for each in self._ranges}
        largest |= _output_shapes(self._context, self.outputs)
        for tensor in (*self.inputs, *self.outputs):
            self._buffers.allocate(tensor, largest[tensor.name])
        self._use({})

    def _use(self, direct: dict[str, int]) -> None:
        """`_bind` of the first context, where it is bound otherwise."""
        if direct != self._addresses:
            self._addresses = None
            self._bind(self._context, direct)
            self._addresses = direct

    def _bind(self, context: Any, direct: Mapping[str, int]) -> None:
        """Let `context` work on the engine's own buffers, but read the inputs in `direct` at the addresses there."""
        for tensor in (*self.inputs, *self.outputs):
            address = direct.get(tensor.name, self._buffers.address_of(tensor.name))
            self._call(f"refuses the address of {tensor.name}", context.set_tensor_address, tensor.name, address)

    def _compute(self, given: list[Given], on_device: Collection[str]) -> dict[str, Any]:
        direct = self._buffers.put(given, in_place=self.cuda_graphs.startswith("off"))
        shapes = self._execute(tuple(each.shape for each in given), direct)
        results: dict[str, Any] = {}
        for tensor in self.outputs:
            results[tensor.name] = self._buffers.fetch(tensor, shapes[tensor.name], stays=tensor.name in on_device)
        self._session.synchronize()
        if self._jit is not None:
            self._jit.save_once()
        # The staging memory is written again by the next call.
        return {name: each.copy() if isinstance(each, np.ndarray) else each for name, each in results.items()}

    def _execute(self, key: Key, direct: dict[str, int]) -> dict[str, Shape]:
        """Put the engine's work on the stream; the shapes of its outputs."""
        if self.cuda_graphs == "on":
            captured = self._graphs.get(key)
            if captured is not None:
                captured.graph.launch(self._session.stream)
                return captured.output_shapes
            if self._graphs.is_due(key):
                captured = self._capture(key)
                if captured is not None:
                    return captured.output_shapes
        if key != self._shapes:
            self._shapes = None
            self._set_shapes(self._context, key)
            self._shapes = key
        self._use(direct)
        self._enqueue(self._context, self._session.stream)
        return _output_shapes(self._context, self.outputs)

    def _capture(self, key: Key) -> Captured | None:
        """Do the work of these shapes, then capture it; None where that fails, and then it is never tried again."""
        try:
            # A context of its own, as TensorRT asks for: the graph holds what the context knew when it was captured.
            context = self._context_on_shared_memory()
            if context is None:
                raise BackendError("there is no memory for another execution context")
            self._set_shapes(context, key)
            self._bind(context, {})
            # TensorRT finishes its own set-up in the first call after a change of shape, which cannot be captured.
            self._enqueue(context, self._session.stream)
            self._session.synchronize()
            graph = capture(self._session, lambda stream: self._enqueue(context, stream))
        except Exception as error:
            self.cuda_graphs = f"off: capturing failed ({error})"
            _log.warning("CUDA graphs are %s", visible(self.cuda_graphs))
            self._graphs.close()
            return None
        keep_while_alive(graph, context)
        captured = Captured(graph, context, _output_shapes(context, self.outputs))
        self._graphs.put(key, captured)
        return captured

    def _set_shapes(self, context: Any, key: Key) -> None:
        for tensor, shape in zip(self.inputs, key, strict=True):
            self._call(f"refuses {tensor.name} of shape {list(shape)}", context.set_input_shape, tensor.name, shape)

    def _enqueue(self, context: Any, stream: int) -> None:
        self._call("failed to run", context.execute_async_v3, stream)

    def _call(self, failure: str, function: Callable[..., bool], *arguments: Any) -> None:
        errors = Errors(runtime_logger(self._flavour))
        if not function(*arguments):
            raise BackendError(
                f"{self._flavour.title} {failure}: {errors.text()}; check the GPU's free memory with nvidia-smi"
            )


def _graphs_state(wanted: bool, flavour: Flavour, session: DeviceSession) -> str:
    if not wanted:
        return "off"
    if session.stream in (_LEGACY_STREAM, _PER_THREAD_STREAM):
        state = "off: the stream handed in is a default stream, which cannot be captured"
        _warn_once(state)
        return state
    return _LEFT_TO_RTX if flavour.is_rtx else "on"


@functools.cache
def _warn_once(state: str) -> None:
    """Once in a process, not for each engine."""
    _log.warning("CUDA graphs are %s", state)


def _output_shapes(context: Any, outputs: tuple[Tensor, ...]) -> dict[str, Shape]:
    return {tensor.name: tuple(context.get_tensor_shape(tensor.name)) for tensor in outputs}
