"""What of samrt works on this machine, and how to get what does not.

The packages the runtime needs are imported, because a package that is installed may still not load. The optional ones
are only looked up: importing torch takes seconds.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_EXPORT_REMEDY = "pip install 'samrt[export]'"
_JETSON_RELEASE = Path("/etc/nv_tegra_release")
_DEVICE_MODEL = Path("/proc/device-tree/model")
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
    """Look at everything samrt can use on this machine. Takes under a second and changes nothing."""
    return [
        Finding("Python", "ok", f"{platform.python_version()}, {sys.executable}"),
        Finding("platform", "ok", platform.platform()),
        Finding("CPU", "ok", f"{_usable_cpus()} of {os.cpu_count()} cores usable"),
        _needed("numpy", "numpy", "pip install numpy"),
        _needed("OpenCV", "cv2", "pip install --force-reinstall opencv-python-headless (the full build needs libGL)"),
        _needed("Pillow", "PIL", "pip install --force-reinstall pillow"),
        _onnxruntime(),
        *(_export_package(name) for name in ("torch", "onnx", "onnxscript")),
        _driver(),
        *_jetson(),
        _tensorrt(),
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


def _tensorrt() -> Finding:
    flavours = ("tensorrt", "tensorrt_rtx")
    present = [f"{module} {version}" for module in flavours if (version := _version_of(module)) is not None]
    found = f"{', '.join(present)} installed, but not used" if present else "not installed and not needed"
    status: Literal["ok", "missing"] = "ok" if present else "missing"
    return Finding("TensorRT", status, f"{found}: this version of samrt has no TensorRT backend")


def _version_of(module: str) -> str | None:
    """The version of an importable package, found without importing it; None when it cannot be imported."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return "version unknown"


def _driver() -> Finding:
    name = "NVIDIA driver"
    try:
        cuda = ctypes.CDLL(_CUDA_LIBRARY)
    except OSError:
        return Finding(name, "missing", "none found and none needed: this version of samrt runs on the CPU")
    version = ctypes.c_int(0)
    # Answers without touching the GPU, unlike cuInit.
    code = cuda.cuDriverGetVersion(ctypes.byref(version))
    if code != 0 or version.value == 0:
        return Finding(name, "broken", f"{_CUDA_LIBRARY} is there, but cuDriverGetVersion answers {code}")
    major, minor = version.value // 1000, version.value % 1000 // 10
    return Finding(name, "ok", f"supports CUDA {major}.{minor}; this version of samrt runs on the CPU")


def _jetson() -> list[Finding]:
    """One finding on a Jetson, none elsewhere."""
    model = _first_line(_DEVICE_MODEL)
    release = _first_line(_JETSON_RELEASE)
    if release is None and (model is None or "NVIDIA" not in model):
        return []
    return [Finding("Jetson", "ok", ", ".join(text for text in (model, release) if text))]


def _first_line(path: Path) -> str | None:
    try:
        # The device tree ends its strings with a zero byte.
        lines = path.read_text("utf-8", errors="replace").replace("\0", "").splitlines()
    except OSError:
        return None
    return lines[0].strip(" #") if lines else None
