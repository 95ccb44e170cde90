"""What of samrt works on this machine, and how to get what does not.

The packages the runtime needs are imported, because a package that is installed may still not load, and so are the
flavours of TensorRT that are there. The exporter's are only looked up: importing torch takes seconds.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from samrt.errors import BackendError
from samrt.tensorrt.flavours import FLAVOURS, import_flavour, installed_flavours

if TYPE_CHECKING:
    from samrt.cuda import Gpu

_EXPORT_REMEDY = "pip install 'samrt[export]'"
_JETSON_RELEASE = Path("/etc/nv_tegra_release")
_DEVICE_MODEL = Path("/proc/device-tree/model")
# What nvpmodel keeps for itself: the mode's number, and what each number means.
_POWER_STATUS, _POWER_MODES = Path("/var/lib/nvpmodel/status"), Path("/etc/nvpmodel.conf")
_POWER_TIMEOUT = 3.0  # seconds
_TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_CUDA_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        status: `ok`; `missing`, for what is optional and absent; `broken`, for what the runtime needs and cannot use,
            and for what is present but fails.
        detail: a version, or what is wrong.
        remedy: what to type to get it, or empty.
        required: the runtime does not work without it.
    """

    name: str
    status: Literal["ok", "missing", "broken"]
    detail: str
    remedy: str = ""
    required: bool = False


def examine() -> list[Finding]:
    """Look at everything samrt can use on this machine. Takes a second or two and changes nothing."""
    onnxruntime, driver, jetson = _onnxruntime(), _driver(), _jetson()
    cuda, gpus = _cuda_core(driver), _gpus()
    flavours = {name: _flavour(name, on_jetson=bool(jetson)) for name in FLAVOURS}
    return [
        Finding("Python", "ok", f"{platform.python_version()}, {sys.executable}"),
        Finding("platform", "ok", platform.platform()),
        Finding("CPU", "ok", f"{_usable_cpus()} of {os.cpu_count()} cores usable"),
        _needed("numpy", "numpy", "pip install numpy"),
        _needed("OpenCV", "cv2", "pip install --force-reinstall opencv-python-headless (the full build needs libGL)"),
        _needed("Pillow", "PIL", "pip install --force-reinstall pillow"),
        onnxruntime,
        *(_export_package(name) for name in ("torch", "onnx", "onnxscript")),
        *jetson,
        *(_power_mode() if jetson else ()),
        driver,
        cuda,
        *_described(gpus, driver, cuda),
        *flavours.values(),
        _onnxruntime_backend(onnxruntime),
        *(_tensorrt_backend(name, flavours, (driver, cuda), gpus) for name in FLAVOURS),
    ]


def runtime_works(findings: list[Finding]) -> bool:
    """Whether nothing that the runtime needs is broken."""
    return not any(finding.required and finding.status == "broken" for finding in findings)


def _usable_cpus() -> int:
    # Containers and taskset allow fewer than the machine has.
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _needed(name: str, module: str, remedy: str) -> Finding:
    try:
        version = importlib.import_module(module).__version__
    except Exception as error:
        # A damaged installation raises anything from ImportError to SystemError.
        return Finding(name, "broken", f"{type(error).__name__}: {error}", remedy, required=True)
    return Finding(name, "ok", str(version), required=True)


def _onnxruntime() -> Finding:
    name = "ONNX Runtime"
    finding = _needed(name, "onnxruntime", "pip install --force-reinstall onnxruntime")
    if finding.status == "broken":
        return finding
    providers = importlib.import_module("onnxruntime").get_available_providers()
    if "CPUExecutionProvider" not in providers:
        detail = f"{finding.detail}, without its CPU provider (has {', '.join(providers) or 'none'})"
        return Finding(name, "broken", detail, "pip install --force-reinstall onnxruntime", required=True)
    return Finding(name, "ok", f"{finding.detail}, providers {', '.join(providers)}", required=True)


def _export_package(module: str) -> Finding:
    name = f"export: {module}"
    version = _version_of(module)
    if version is None:
        return Finding(name, "missing", "needed only to export checkpoints", _EXPORT_REMEDY)
    pinned = _pinned(module)
    # A build's own label, as in 2.13.0+cpu, does not count.
    if pinned is not None and version.partition("+")[0] != pinned:
        return Finding(name, "broken", f"{version}, but exporting needs {pinned}", _EXPORT_REMEDY)
    return Finding(name, "ok", version)


def _pinned(module: str) -> str | None:
    """The one version of a package that samrt's export extra allows; None where it allows several."""
    try:
        requirements = importlib.metadata.requires("samrt") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    pin = re.compile(rf"""{module}==([^\s;]+)\s*;.*extra == ["']export["']""")
    return next((match[1] for requirement in requirements if (match := pin.match(requirement))), None)


def _flavour(name: str, on_jetson: bool) -> Finding:
    """One flavour of TensorRT, imported where it is installed."""
    title = _TITLES[name]
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
    return "" if on_jetson else "pip install 'samrt[rtx]'"


def _cuda_core(driver: Finding) -> Finding:
    """CUDA's Python bindings, in the version that fits the driver."""
    name = "cuda-core"
    extra = "samrt[cu12]" if "CUDA 12" in driver.detail else "samrt[cu13]"
    for module, package in (("cuda.core", "cuda-core"), ("cuda.bindings", "cuda-bindings")):
        version = _version_of(module, package)
        if version is None:
            return Finding(name, "missing", f"no {package}; the TensorRT backends need it", f"pip install '{extra}'")
        try:
            importlib.import_module(module)
        except Exception as error:  # as in _needed
            return Finding(name, "broken", f"{package} {version}: {error}", f"pip install --force-reinstall '{extra}'")
    bindings = _version_of("cuda.bindings", "cuda-bindings")
    found = f"{_version_of('cuda.core', 'cuda-core')}, cuda-bindings {bindings}"
    supported = re.search(r"CUDA (\d+)", driver.detail)
    made_for = re.match(r"\d+", bindings or "")
    # Bindings run on drivers of their own CUDA and later.
    if supported and made_for and int(made_for[0]) > int(supported[1]):
        detail = f"{found} are for CUDA {made_for[0]}, the driver {driver.detail}"
        return Finding(name, "broken", detail, f"pip install '{extra}'")
    return Finding(name, "ok", found)


def _gpus() -> list[Gpu]:
    try:
        from samrt.cuda import find_gpus
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


def _onnxruntime_backend(onnxruntime: Finding) -> Finding:
    if onnxruntime.status == "ok":
        return Finding("backend onnxruntime", "ok", "on the CPU")
    return Finding("backend onnxruntime", "missing", f"cannot run here for want of {onnxruntime.name}")


def _tensorrt_backend(
    name: str, flavours: Mapping[str, Finding], needed: Sequence[Finding], gpus: Sequence[Gpu]
) -> Finding:
    """Whether engines of this flavour can run here; what they need is in lines of its own, with its remedies."""
    lacking = [finding.name for finding in (flavours[name], *needed) if finding.status != "ok"]
    if not lacking and not gpus:
        lacking = ["a GPU"]
    if not lacking:
        return Finding(f"backend {name}", "ok", f"on {', '.join(gpu.name for gpu in gpus)}")
    detail = f"cannot run here for want of {', '.join(lacking)}"
    if name == "tensorrt_rtx" and flavours[name].status == "ok":
        detail += "; `samrt build` can build its engines for other machines"
    return Finding(f"backend {name}", "missing", detail)


def _version_of(module: str, package: str = "") -> str | None:
    """The version of an importable package, found without importing it; None when it cannot be imported."""
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except ModuleNotFoundError:  # of a submodule, when what it is in is not there
        return None
    try:
        return importlib.metadata.version(package or module)
    except importlib.metadata.PackageNotFoundError:
        return "version unknown"


def _driver() -> Finding:
    name = "NVIDIA driver"
    try:
        cuda = ctypes.CDLL(_CUDA_LIBRARY)
    except OSError:
        return Finding(name, "missing", "none found; ONNX Runtime needs none, the TensorRT backends do")
    version = ctypes.c_int(0)
    # Answers without touching the GPU, unlike cuInit.
    code = cuda.cuDriverGetVersion(ctypes.byref(version))
    if code != 0 or version.value == 0:
        return Finding(name, "broken", f"{_CUDA_LIBRARY} is there, but cuDriverGetVersion answers {code}")
    major, minor = version.value // 1000, version.value % 1000 // 10
    return Finding(name, "ok", f"supports CUDA {major}.{minor}")


def _jetson() -> list[Finding]:
    """One finding on a Jetson, none elsewhere."""
    model = _first_line(_DEVICE_MODEL)
    release = _first_line(_JETSON_RELEASE)
    if release is None and (model is None or "NVIDIA" not in model):
        return []
    return [Finding("Jetson", "ok", ", ".join(text for text in (model, release) if text))]


def _power_mode() -> list[Finding]:
    """The power mode, which caps the clocks: by nvpmodel's own files, else by asking it. Never as root."""
    name = "power mode"
    modes = dict(re.findall(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", _text_of(_POWER_MODES), re.MULTILINE))
    others = f", of {', '.join(f'{mode} ({number})' for number, mode in modes.items())}" if modes else ""
    if match := re.search(r"pmode:(\d+)", _text_of(_POWER_STATUS)):
        number = str(int(match[1]))
        return [Finding(name, "ok", f"{modes.get(number, 'mode')} ({number}){others}")]
    if match := re.search(r"NV Power Mode:\s*(\S+)", _ask_nvpmodel()):
        return [Finding(name, "ok", f"{match[1]}{others}")]
    return [Finding(name, "missing", "cannot be read", "sudo nvpmodel -q")]


def _ask_nvpmodel() -> str:
    try:
        answer = subprocess.run(
            ["nvpmodel", "-q"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_POWER_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _first_line(path: Path) -> str | None:
    # The device tree ends its strings with a zero byte.
    lines = _text_of(path).replace("\0", "").splitlines()
    return lines[0].strip(" #") if lines else None
