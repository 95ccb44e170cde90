"""What of an NVIDIA GPU can be used here: driver, CUDA bindings, TensorRT, our kernels, and what they make possible."""

from __future__ import annotations

import ctypes
import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from samrt.doctor.findings import Finding, install_extra, version_of
from samrt.doctor.jetson import examine_jetson
from samrt.doctor.kernels import examine_kernels
from samrt.engines.flavours import FLAVOURS, TITLES, import_flavour, installed_flavours
from samrt.errors import BackendError

if TYPE_CHECKING:
    from samrt.device.gpus import Gpu

_CUDA_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_OLDEST_CUDA = 12  # the oldest that samrt has an extra for


def examine_gpu() -> tuple[list[Finding], list[Finding]]:
    """What is there, and which of the TensorRT backends can run; changes nothing."""
    jetson = examine_jetson()
    driver, supported = _driver(on_jetson=bool(jetson))
    cuda, gpus = _cuda_core(supported), _gpus()
    flavours = {name: _flavour(name, on_jetson=bool(jetson)) for name in FLAVOURS}
    backends = [_backend(name, flavours, (driver, cuda), gpus) for name in FLAVOURS]
    described = _described(gpus, driver, cuda)
    return [*jetson, driver, cuda, *described, *flavours.values(), *examine_kernels(gpus)], backends


def _driver(on_jetson: bool) -> tuple[Finding, int]:
    """The driver, and the major version of CUDA that it supports: 0 where that is not known."""
    name = "NVIDIA driver"
    try:
        cuda = ctypes.CDLL(_CUDA_LIBRARY)
    except OSError:
        return Finding(name, "missing", "none found; ONNX Runtime needs none, the TensorRT backends do"), 0
    version = ctypes.c_int(0)
    # Answers without touching the GPU, unlike cuInit.
    code = cuda.cuDriverGetVersion(ctypes.byref(version))
    if code != 0 or version.value == 0:
        return Finding(name, "broken", f"{_CUDA_LIBRARY} is there, but cuDriverGetVersion answers {code}"), 0
    major, minor = version.value // 1000, version.value % 1000 // 10
    supports = f"supports CUDA {major}.{minor}"
    if major < _OLDEST_CUDA:
        remedy = "install JetPack 6.1 or newer" if on_jetson else f"upgrade it to one for CUDA {_OLDEST_CUDA} or newer"
        return Finding(name, "broken", f"{supports}; samrt needs CUDA {_OLDEST_CUDA} or newer", remedy), major
    return Finding(name, "ok", supports), major


def _cuda_core(supported: int) -> Finding:
    """CUDA's Python bindings, in the version that fits a driver for CUDA `supported`; 0 where that is not known."""
    name = "cuda-core"
    if 0 < supported < _OLDEST_CUDA:
        return Finding(name, "missing", f"not tried: it has nothing for a driver of CUDA {supported}")
    extra = "cu12" if supported == 12 else "cu13"
    for module, package in (("cuda.core", "cuda-core"), ("cuda.bindings", "cuda-bindings")):
        version = version_of(module, package)
        if version is None:
            return Finding(name, "missing", f"no {package}; the TensorRT backends need it", install_extra(extra))
        try:
            importlib.import_module(module)
        except Exception as error:  # a damaged installation raises anything
            remedy = install_extra(extra, "--force-reinstall ")
            return Finding(name, "broken", f"{package} {version}: {error}", remedy)
    bindings = version_of("cuda.bindings", "cuda-bindings")
    found = f"{version_of('cuda.core', 'cuda-core')}, cuda-bindings {bindings}"
    made_for = re.match(r"\d+", bindings or "")
    # Bindings run on drivers of their own CUDA and later.
    if supported and made_for and int(made_for[0]) > supported:
        detail = f"{found} are for CUDA {made_for[0]}, the driver supports CUDA {supported}"
        return Finding(name, "broken", detail, install_extra(extra))
    return Finding(name, "ok", found)


def _gpus() -> list[Gpu]:
    try:
        from samrt.device.gpus import find_gpus
    except Exception:  # needs NumPy, which may be what is broken
        return []
    return find_gpus()


def _described(gpus: Sequence[Gpu], driver: Finding, cuda: Finding) -> list[Finding]:
    if not gpus and driver.status == cuda.status == "ok":
        return [Finding("GPU", "broken", "the driver is there, but CUDA finds no device", "look at `nvidia-smi`")]
    return [
        Finding(
            f"GPU {gpu.index}",
            "ok",
            f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory / 2**30:.1f} GiB",
        )
        for gpu in gpus
    ]


def _flavour(name: str, on_jetson: bool) -> Finding:
    """One flavour of TensorRT, imported where it is installed."""
    title = TITLES[name]
    installed = installed_flavours().get(name)
    if installed is None:
        return Finding(title, "missing", "not installed", _install_remedy(name, on_jetson))
    try:
        return Finding(title, "ok", import_flavour(name).version)
    except BackendError as error:
        return Finding(title, "broken", str(error))


def _install_remedy(name: str, on_jetson: bool) -> str:
    if name == "tensorrt":
        return (
            "sudo apt install python3-libnvinfer, in an environment with system packages: see docs/jetson.md"
            if on_jetson
            else "pip install tensorrt"
        )
    # Its wheels have no code for Jetson's GPUs.
    return "" if on_jetson else install_extra("rtx")


def _backend(name: str, flavours: Mapping[str, Finding], needed: Sequence[Finding], gpus: Sequence[Gpu]) -> Finding:
    """Whether engines of this flavour can run here; what they need is in lines of its own, with its remedies."""
    lacking = [finding.name for finding in (flavours[name], *needed) if finding.status != "ok"]
    if not lacking and not gpus:
        lacking = ["a GPU"]
    if not lacking:
        return Finding(f"backend {name}", "ok", f"on {', '.join(gpu.name for gpu in gpus)}")
    detail = f"cannot run here without {', '.join(lacking)}"
    if name == "tensorrt_rtx" and flavours[name].status == "ok":
        detail += "; its engines can be built here for other machines"
    return Finding(f"backend {name}", "missing", detail)
