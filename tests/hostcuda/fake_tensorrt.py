"""A stand-in for the modules `tensorrt` and `tensorrt_rtx` whose contexts compute with ONNX Runtime.

The work is a host function on the stream, so that it is done when the stream gets there and is captured into graphs.
As with the real one, a graph holds the addresses of the moment of its capture, and the context that it came from must
not change: the shapes are read when the work is done.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

from samrt.bundle.contract import Graph
from samrt.bundle.graph_check import PLUGIN_NAME
from samrt.engines.flavours import Flavour
from samrt.engines.plugin import PLUGIN_NAMESPACE, PLUGIN_VERSION

_cuda = ctypes.CDLL("libcuda.so.1")
_HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_cuda.cuLaunchHostFunc.argtypes = [ctypes.c_void_p, _HostFunction, ctypes.c_void_p]
_tickets = itertools.count(1)
_work: dict[int, Any] = {}
SCRATCH = 4096


@_HostFunction
def _perform(ticket: int) -> None:
    _work[ticket]()


def write_plan(
    path: Path,
    onnx: Path,
    graph: Graph,
    largest: Mapping[str, int],
    *,
    reports_fixed: bool = True,
    plugin: bool = False,
) -> Path:
    """A "plan": which graph, and the ranges of its inputs from their smallest (points 0, others 1) to `largest`.

    `reports_fixed`: an axis of one possible length has that length, not -1, where the engine is asked for its shapes.
    `plugin`: it has a layer of samrt's plugin.
    """
    tensors = []
    for tensor in graph.inputs:
        low, high = (
            [n if isinstance(n, int) else lengths(n) for n in tensor.shape]
            for lengths in (lambda axis: 0 if axis == "points" else 1, largest.__getitem__)
        )
        tensors.append([tensor.name, tensor.dtype, [-1 if isinstance(n, str) else n for n in tensor.shape], low, high])
    outputs = [[t.name, t.dtype, list(t.shape)] for t in graph.outputs]
    plan = {
        "onnx": str(onnx),
        "inputs": tensors,
        "outputs": outputs,
        "reports_fixed": reports_fixed,
        "plugin": [PLUGIN_NAME, PLUGIN_VERSION, PLUGIN_NAMESPACE] if plugin else None,
    }
    path.write_text(json.dumps(plan))
    return path


@functools.cache
def _session(onnx: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


class Context:
    """Made on memory that the caller gives, unless a config says otherwise."""

    def __init__(self, engine: Engine, config: RuntimeConfig | None) -> None:
        self.engine = engine
        self.config = config
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory = 0
        self.tickets: list[int] = []

    def __del__(self) -> None:
        for ticket in self.tickets:
            _work.pop(ticket, None)

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= SCRATCH
        self.memory = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, high = self.engine.ranges[name]
        fits = all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))
        self.shapes[name] = tuple(shape)
        return fits

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        lengths = {
            axis: n
            for each, shape in self.shapes.items()
            for axis, n in zip(self.engine.axes[each], shape, strict=True)
            if isinstance(axis, str)
        }
        return tuple(lengths.get(axis, axis) for axis in self.engine.axes[name])

    def execute_async_v3(self, stream: int) -> bool:
        if self.engine.fails or (self.engine.fails_in_captures and _is_capturing(stream)):
            self.engine.logger.log(self.engine.logger.Severity.ERROR, "a kernel was not to be found")
            return False
        aligned = all(address and address % 256 == 0 for address in self.addresses.values())
        if not aligned or len(self.shapes) != len(self.engine.ranges):
            return False
        if self.config is not None:
            self.config.cache.shapes.add(str(sorted(self.shapes.items())))
        addresses = dict(self.addresses)
        ticket = next(_tickets)
        self.tickets.append(ticket)
        _work[ticket] = lambda: self._compute(addresses)
        return int(_cuda.cuLaunchHostFunc(stream, _perform, ticket)) == 0

    def _compute(self, addresses: dict[str, int]) -> None:
        if self.memory:
            ctypes.memset(self.memory, 1, SCRATCH)
        engine = self.engine
        inputs = {n: _at(addresses[n], self.get_tensor_shape(n), engine.dtypes[n]).copy() for n in engine.ranges}
        for name, value in zip(engine.outputs, engine.session.run(engine.outputs, inputs), strict=True):
            _at(addresses[name], value.shape, value.dtype)[...] = value


class Engine:
    def __init__(self, plan: dict[str, Any], logger: Any) -> None:
        self.logger = logger
        self.fails = self.fails_in_captures = False
        self.session = _session(plan["onnx"])
        by_name = {each.name: each.shape for each in self.session.get_inputs()}
        self.ranges = {name: (low, high) for name, _, _, low, high in plan["inputs"]}
        self.axes = {**by_name, **{name: shape for name, _, shape in plan["outputs"]}}
        self.fixed = _fixed_axes(self.ranges, by_name) if plan["reports_fixed"] else {}
        self.dtypes = {name: dtype for name, dtype, *_ in (*plan["inputs"], *plan["outputs"])}
        self.outputs = [name for name, *_ in plan["outputs"]]
        self.names = [*self.ranges, *self.outputs]
        self.num_io_tensors = len(self.names)
        self.device_memory_size_v2 = SCRATCH
        self.contexts_left = 100

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.ranges else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.dtypes[name])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.fixed.get(n, -1) if isinstance(n, str) else n for n in self.axes[name])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Any]:
        assert profile == 0
        # An input whose shape never varies has none, as far as a caller may count on.
        low, high = self.ranges[name] if -1 in self.get_tensor_shape(name) else ((), ())
        return [low, low, high]

    def create_execution_context(self, how: Any) -> Context | None:
        self.contexts_left -= 1
        return Context(self, how if isinstance(how, RuntimeConfig) else None) if self.contexts_left >= 0 else None

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()


def _fixed_axes(ranges: Mapping[str, Any], axes: Mapping[str, Any]) -> dict[str, int]:
    return {
        axis: low
        for name, bounds in ranges.items()
        for axis, low, high in zip(axes[name], *bounds, strict=True)
        if isinstance(axis, str) and low == high
    }


def _is_capturing(stream: int) -> bool:
    status = ctypes.c_int()
    _cuda.cuStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(status))
    return status.value != 0


class RuntimeConfig:
    def __init__(self) -> None:
        self.cuda_graph_strategy = "disabled"
        self.cache: Any = None

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class RuntimeCache:
    def __init__(self) -> None:
        self.shapes: set[str] = set()

    def serialize(self) -> bytes:
        return json.dumps(sorted(self.shapes)).encode()

    def deserialize(self, content: bytes) -> bool:
        try:
            self.shapes = set(json.loads(content))
        except ValueError:
            return False
        return True


class EngineValidity(enum.Enum):
    VALID = 0
    INVALID = 2


class EngineInvalidityDiagnostics(enum.IntFlag):
    VERSION_MISMATCH = 1
    UNSUPPORTED_CC = 2
    MALFORMED_ENGINE = 32


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3


class PluginRegistry:
    """Of one process; every file that is there is a library with samrt's plugin."""

    def __init__(self) -> None:
        self.libraries: list[str] = []
        self.creators: set[tuple[str, str, str]] = set()

    def load_library(self, path: str) -> object | None:
        self.libraries.append(path)
        name = (PLUGIN_NAME, PLUGIN_VERSION, PLUGIN_NAMESPACE)
        if name in self.creators or not Path(path).is_file():
            return None
        self.creators.add(name)
        return object()

    def get_creator(self, kind: str, version: str, namespace: str = "") -> object | None:
        return object() if (kind, version, namespace) in self.creators else None


def fake_flavour(*, rtx: bool = False) -> Flavour:
    """The stand-in as samrt sees it; `module.engines` lists what was deserialised, `module.registry` holds plugins."""
    engines: list[Engine] = []
    registry = PluginRegistry()

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def get_engine_validity(self, plan: Any) -> tuple[EngineValidity, int]:
            content = bytes(plan)
            if content.startswith(b"{"):
                return EngineValidity.VALID, 0
            wrong = EngineInvalidityDiagnostics.UNSUPPORTED_CC if content == b"other gpu" else 32
            return EngineValidity.INVALID, int(wrong)

        def deserialize_cuda_engine(self, plan: Any) -> Engine | None:
            try:
                content = json.loads(bytes(plan))
                if content["plugin"] and registry.get_creator(*content["plugin"]) is None:
                    self.logger.log(self.logger.Severity.ERROR, f"Cannot find plugin: {content['plugin'][0]}")
                    return None
                engine = Engine(content, self.logger)
            except ValueError:
                self.logger.log(self.logger.Severity.ERROR, "the plan has a wrong magic tag")
                return None
            engines.append(engine)
            return engine

    module = SimpleNamespace(
        ILogger=ILogger,
        Runtime=Runtime,
        EngineValidity=EngineValidity,
        EngineInvalidityDiagnostics=EngineInvalidityDiagnostics,
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user"),
        CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole"),
        TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"),
        nptype=lambda name: np.dtype(name).type,
        engines=engines,
        registry=registry,
        get_plugin_registry=lambda: registry,
    )
    return Flavour("tensorrt_rtx" if rtx else "tensorrt", _Module(module), "0")


class _Module:
    """Attributes of a namespace, in something that can be hashed, as modules can."""

    def __init__(self, names: SimpleNamespace) -> None:
        self.__dict__.update(names.__dict__)


def _at(address: int, shape: tuple[int, ...], dtype: Any) -> Any:
    size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.ndarray(shape, dtype, buffer=memoryview((ctypes.c_char * size).from_address(address)))
