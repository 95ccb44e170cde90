"""samrt's CUDA kernels from Python: finding the library, checking that it fits, and calling it on device addresses.

`pip install .` compiles `libsamrt_kernels.so` where it finds nvcc. Plain ctypes on its C interface
(kernels/samrt_kernels.h), so that neither a compiler nor another CUDA package is needed at run time, and whoever owns
the memory (cuda.core, torch, CuPy, PyCUDA) passes addresses and its stream.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from samrt.errors import BackendError, InputError

KERNELS_VERSION = 2  # SAMRT_KERNELS_VERSION of kernels/samrt_kernels.h; a test compares them

LIBRARY_FOLDER = Path(__file__).resolve().parents[1] / "lib"
KERNELS_VARIABLE = "SAMRT_KERNELS_LIBRARY"
PLUGIN_VARIABLE = "SAMRT_PLUGIN_LIBRARY"

_FORMATS = {"fp16": 0, "bf16": 1}
# Compute capabilities of Jetsons: Orin, Thor.
_TEGRA = {"8.7", "11.0"}
_DEFAULT_TILE = -1
_ErrorHandler = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
_handlers: list[Any] = []
_INSTALL_AGAIN = "in a checkout of samrt: pip install -v ."
_REMEDY = f"Install samrt again, or correct what named this file ({KERNELS_VARIABLE}, {PLUGIN_VARIABLE})"


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of one attention layer, as `samrt_attention_args` has them.

    Attributes:
        batch: images.
        grid_h, grid_w: tokens down and across.
        heads: attention heads.
        head_dim: 64 or 80.
        window: side of a window in tokens; 0 for attention over the whole grid.
        precision: of every tensor; sums are float32 in both.
    """

    batch: int
    grid_h: int
    grid_w: int
    heads: int
    head_dim: int
    window: int = 0
    precision: Literal["fp16", "bf16"] = "fp16"


@dataclass(frozen=True)
class AttentionTensors:
    """Device addresses of contiguous tensors aligned to 16 bytes; 0 for one that is not there.

    Attributes:
        qkv: [batch, grid_h * grid_w, 3, heads, head_dim], bias included.
        out: [batch, grid_h * grid_w, heads * head_dim]; written.
        qkv_bias: [3, heads, head_dim], q, k and v of the tokens that fill the last windows; needed where the window
            does not divide both sides of the grid.
        rel_pos_h: [2 * side_h - 1, head_dim], where side_h is the window, or grid_h. 0 with rel_pos_w: no bias.
        rel_pos_w: [2 * side_w - 1, head_dim].
    """

    qkv: int
    out: int
    qkv_bias: int = 0
    rel_pos_h: int = 0
    rel_pos_w: int = 0


class AttentionArgs(ctypes.Structure):
    """`samrt_attention_args` of kernels/samrt_kernels.h; a test compares their layouts."""

    _fields_ = (
        ("qkv", ctypes.c_void_p),
        ("qkv_bias", ctypes.c_void_p),
        ("rel_pos_h", ctypes.c_void_p),
        ("rel_pos_w", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("batch", ctypes.c_int32),
        ("grid_h", ctypes.c_int32),
        ("grid_w", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("window", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("tile", ctypes.c_int32),
    )


class Kernels:
    """A loaded library. Calls may come from several threads; the device is the calling thread's current one.

    Attributes:
        path: the file.
        version: of its interface; always `KERNELS_VERSION`.
        architectures: it holds machine code for, as ("80", "87"); with "120-ptx" at the end also the form that
            drivers compile for newer GPUs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = _open(path)
        self.version = _checked_version(self._library, path)
        self.architectures = tuple(self._text("samrt_kernels_architectures").split(";"))

    @property
    def is_plugin(self) -> bool:
        """Whether it is a TensorRT plugin too: `find_plugin_library`'s file, not `find_kernels_library`'s."""
        return hasattr(self._library, "getCreators")

    def runs_on(self, compute_capability: str) -> bool:
        """Whether it holds code for a GPU of this compute capability, as "8.7"."""
        major, minor = map(int, compute_capability.split("."))
        for architecture in self.architectures:
            number, _, form = architecture.partition("-")
            made_for = divmod(int(number), 10) if number.isdigit() else (major + 1, 0)
            # PTX runs on everything newer. Machine code runs within its major version, on a Tegra on its own alone.
            if made_for == (major, minor) or (form == "ptx" and made_for < (major, minor)):
                return True
            tegra = _TEGRA & {f"{major}.{minor}", f"{made_for[0]}.{made_for[1]}"}
            if made_for < (major, minor) and made_for[0] == major and not tegra:
                return True
        return False

    def attention(
        self, shape: AttentionShape, tensors: AttentionTensors, stream: int = 0, tile: int | None = None
    ) -> None:
        """Put attention with decomposed relative position (arXiv:2304.02643) on a stream, and do not wait for it.

        Args:
            shape: the layer's sizes.
            tensors: device addresses, which must stay valid until the stream has come past this call.
            stream: a `cudaStream_t` as a number; 0 is CUDA's default stream.
            tile: index of a tile shape of `attention_tiles`, for tests and tuning; None for the device's default shape.

        Raises:
            InputError: an unknown precision, or a size past 2^31.
            BackendError: the sizes are refused, or CUDA reported an error; the message says which.
        """
        for name, size in vars(shape).items():
            if isinstance(size, int) and abs(size) >= 2**31:  # ctypes would cut it
                raise InputError(f"attention takes sizes below 2^31, not {name}={size}")
        if shape.precision not in _FORMATS:
            raise InputError(f"attention takes the precisions {', '.join(_FORMATS)}, not {shape.precision!r}")
        arguments = AttentionArgs(
            qkv=tensors.qkv or None,
            qkv_bias=tensors.qkv_bias or None,
            rel_pos_h=tensors.rel_pos_h or None,
            rel_pos_w=tensors.rel_pos_w or None,
            out=tensors.out or None,
            batch=shape.batch,
            grid_h=shape.grid_h,
            grid_w=shape.grid_w,
            heads=shape.heads,
            head_dim=shape.head_dim,
            window=shape.window,
            format=_FORMATS[shape.precision],
            tile=_DEFAULT_TILE if tile is None else tile,
        )
        self.call("samrt_attention", ctypes.byref(arguments), ctypes.c_void_p(stream or None))

    def attention_tiles(self) -> tuple[str, ...]:
        """The names of the tile shapes, by index."""
        name = self._function("samrt_attention_tile_name", ctypes.c_char_p)
        return tuple(name(ctypes.c_int32(index)).decode() for index in range(self._count("samrt_attention_tiles")))

    def self_test(self, stream: int = 0) -> None:
        """Run the library's own check of its kernels on the current GPU, and wait for it.

        Raises:
            BackendError: a kernel does not run on this GPU, or computes something else than it should.
        """
        self.call("samrt_attention_self_test", ctypes.c_void_p(stream or None))

    def on_plugin_error(self, handler: Callable[[str], None]) -> None:
        """Give the TensorRT plugin's errors, one line each, to `handler` instead of stderr; any thread may call it.

        Of `find_plugin_library`'s file only: the other library has no plugin.
        """
        closure = _ErrorHandler(lambda message: handler(message.decode("utf-8", "replace")))
        # Kept for good: the library is, and any of its threads may be about to call an earlier one.
        _handlers.append(closure)
        set_handler = self._function("samrt_plugin_on_error", None)
        set_handler(closure)
        atexit.register(set_handler, None)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the C interface that returns 0 or a code, with ctypes objects for arguments.

        Raises:
            BackendError: it returned a code; the message is the library's own.
        """
        code = self._function(name, ctypes.c_int)(*arguments)
        if code != 0:
            raise BackendError(f"{name}: {self._text('samrt_kernels_last_error') or f'failed with code {code}'}")

    def _function(self, name: str, result: Any) -> Any:
        # A function object of its own each time: `getattr` would share one, and its result type, between threads.
        function = self._library[name]
        function.restype = result
        return function

    def _text(self, name: str) -> str:
        return str(self._function(name, ctypes.c_char_p)().decode())

    def _count(self, name: str) -> int:
        return int(self._function(name, ctypes.c_int32)())


def load_kernels(path: str | os.PathLike[str] | None = None) -> Kernels:
    """The kernel library: the file `path`, else the one that `SAMRT_KERNELS_LIBRARY` names, else the installed one.

    Loaded once per file and process.

    Raises:
        BackendError: there is none, it does not load, or it is of another version; the message says what to do.
    """
    return _load(Path(path).resolve() if path is not None else find_kernels_library())


def find_kernels_library() -> Path:
    """Where `libsamrt_kernels.so` is, not loaded. Raises `BackendError` where there is none."""
    return _find("libsamrt_kernels.so", KERNELS_VARIABLE, "kernels")


def find_plugin_library() -> Path:
    """Where `libsamrt_plugin.so`, the TensorRT plugin, is, not loaded. Raises `BackendError` where there is none.

    It is a C++ library with its own copy of the kernels; TensorRT loads it by this path.
    """
    return _find("libsamrt_plugin.so", PLUGIN_VARIABLE, "plugin")


@dataclass(frozen=True)
class BuildNote:
    """What the installation did about the kernels (`lib/build.json`, written by kernels/build.py).

    Attributes:
        kernels: "built", or "not built: " and why.
        plugin: the same of the TensorRT plugin.
        remedy: how to get what is missing; empty where nothing is.
        nvcc: the compiler's version, as "13.0.88"; empty where none ran.
        architectures: what was compiled for, as in `Kernels`.
    """

    kernels: str
    plugin: str
    remedy: str = ""
    nvcc: str = ""
    architectures: tuple[str, ...] = ()


def why_absent(what: Literal["kernels", "plugin"]) -> tuple[str, str]:
    """Why the installation has no such library, and how to get it."""
    try:
        note = BuildNote(**json.loads((LIBRARY_FOLDER / "build.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return "the installation left no note about it", _INSTALL_AGAIN
    reason = str(getattr(note, what))
    if reason == "built":
        return "it was built, and is gone since", _INSTALL_AGAIN
    return reason, note.remedy


@functools.cache
def _load(path: Path) -> Kernels:
    return Kernels(path)


def _find(file: str, variable: str, what: Literal["kernels", "plugin"]) -> Path:
    named = os.environ.get(variable)
    if named:
        path = Path(named).resolve()
        if not path.is_file():
            raise BackendError(f"{variable} names {path}, and there is no such file: correct or unset it")
        return path
    path = LIBRARY_FOLDER / file
    if not path.is_file():
        reason, remedy = why_absent(what)
        raise BackendError(f"there is no {path}: {reason}{f'. To get it: {remedy}' if remedy else ''}")
    return path


def _open(path: Path) -> ctypes.CDLL:
    if not path.is_file():
        raise BackendError(f"there is no kernel library {path}")
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BackendError(f"the kernel library {path} does not load: {error}. {_REMEDY}") from error


def _checked_version(library: ctypes.CDLL, path: Path) -> int:
    try:
        version = int(library["samrt_kernels_version"]())
    except AttributeError:
        raise BackendError(f"{path} is no kernel library of samrt: it has no samrt_kernels_version") from None
    if version != KERNELS_VERSION:
        raise BackendError(
            f"the kernel library {path} is of version {version}, and this samrt needs {KERNELS_VERSION}. {_REMEDY}"
        )
    return version
