"""The two flavours of TensorRT, which share one Python interface: which are installed, and importing one of them."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from samrt.errors import BackendError

FLAVOURS = ("tensorrt", "tensorrt_rtx")

# As they stand in messages.
TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_INSTALL = {
    "tensorrt": "install it with `pip install tensorrt`; on a Jetson with `sudo apt install python3-libnvinfer`, in an "
    "environment made with `python3 -m venv --system-site-packages`",
    "tensorrt_rtx": "install it with `pip install tensorrt-rtx`",
}
# JetPack 6.2's TensorRT; the first TensorRT-RTX that samrt was written for.
_OLDEST = {"tensorrt": (10, 3), "tensorrt_rtx": (1, 7)}


@dataclass(frozen=True)
class Flavour:
    """One imported flavour: its name in `FLAVOURS`, its Python module and its version as text."""

    name: str
    module: Any
    version: str

    @property
    def is_rtx(self) -> bool:
        """TensorRT for RTX: it builds without a GPU and compiles its kernels where the engine runs."""
        return self.name == "tensorrt_rtx"

    @property
    def title(self) -> str:
        """Name and version as they stand in messages: "TensorRT-RTX 1.7.1.116"."""
        return f"{TITLES[self.name]} {self.version}"


def import_flavour(name: str) -> Flavour:
    """Import one of `FLAVOURS`.

    Raises:
        BackendError: there is no such flavour, it is not installed or too old, or its import fails.
    """
    _check_name(name)
    try:
        module = importlib.import_module(name)
        version = str(module.__version__)
    except ModuleNotFoundError as error:
        raise BackendError(f"{TITLES[name]} is not installed ({error}); {_INSTALL[name]}") from error
    except Exception as error:  # a library that does not load raises OSError, a wrong NumPy AttributeError or others
        raise BackendError(
            f"{TITLES[name]} is installed but cannot be imported: {error}; check that its version fits this Python "
            f"and this CUDA, or {_INSTALL[name]}"
        ) from error
    if _numbers(version) < _OLDEST[name]:
        oldest = ".".join(map(str, _OLDEST[name]))
        raise BackendError(
            f"{TITLES[name]} {version} is too old, samrt needs {oldest} or newer; upgrade it, or JetPack on a Jetson"
        )
    return Flavour(name, module, version)


def installed_flavours() -> dict[str, str]:
    """Name and version ("unknown" where it cannot be told) of each flavour that is installed, without importing it.

    That a flavour is installed does not say that its import works: a library may be missing.
    """
    return {name: _version(name) for name in FLAVOURS if _is_installed(name)}


def _check_name(name: str) -> None:
    if name not in FLAVOURS:
        raise BackendError(f"there is no TensorRT flavour {name!r}; choose one of {', '.join(FLAVOURS)}")


def _is_installed(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    spec = importlib.util.find_spec(name)
    # Without a file it is a mere folder of that name on the path.
    return spec is not None and spec.origin is not None


def _version(name: str) -> str:
    known = getattr(sys.modules.get(name), "__version__", None)
    if known is not None:
        return str(known)
    for distribution in metadata.packages_distributions().get(name, []):
        return metadata.version(distribution)
    return "unknown"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
