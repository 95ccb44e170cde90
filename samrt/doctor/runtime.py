"""What of samrt works on this machine, and how to get what does not.

The packages the runtime needs are imported, because a package that is installed may still not load, and so are the
flavours of TensorRT that are there (`gpu_doctor`). The exporter's are only looked up: importing torch takes seconds.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import sys
from collections.abc import Callable
from typing import Any

from samrt.backends.importing import import_onnxruntime
from samrt.bundle.default import default_bundle
from samrt.bundle.folder import open_bundle
from samrt.cpus import default_threads, limits
from samrt.doctor.findings import Finding, install_extra, version_of
from samrt.doctor.gpu import examine_gpu
from samrt.errors import SamrtError


def examine() -> list[Finding]:
    """Look at everything samrt can use on this machine. Takes a second or two and changes nothing."""
    onnxruntime = _onnxruntime()
    gpu, gpu_backends = examine_gpu()
    return [
        Finding("Python", "ok", f"{platform.python_version()}, {sys.executable}"),
        Finding("platform", "ok", platform.platform()),
        _cpu(),
        _needed("numpy", "numpy", "pip install numpy"),
        _needed("OpenCV", "cv2", "pip install --force-reinstall opencv-python-headless (the full build needs libGL)"),
        _needed("Pillow", "PIL", "pip install --force-reinstall pillow"),
        onnxruntime,
        _default_model(),
        *(_export_package(name) for name in ("torch", "onnx", "onnxscript")),
        *gpu,
        _onnxruntime_backend(onnxruntime),
        *gpu_backends,
    ]


def runtime_works(findings: list[Finding]) -> bool:
    """Whether nothing that the runtime needs is broken."""
    return not any(finding.required and finding.status == "broken" for finding in findings)


def _cpu() -> Finding:
    threads, reasons = default_threads(), ", ".join(limit.reason for limit in limits())
    return Finding("CPU", "ok", f"ONNX Runtime uses {threads} thread{'s' if threads > 1 else ''} by default: {reasons}")


def _needed(name: str, module: str, remedy: str, load: Callable[[str], Any] = importlib.import_module) -> Finding:
    try:
        version = load(module).__version__
    except Exception as error:
        # A damaged installation raises anything from ImportError to SystemError.
        return Finding(name, "broken", f"{type(error).__name__}: {error}", remedy, required=True)
    return Finding(name, "ok", str(version), required=True)


def _onnxruntime() -> Finding:
    name = "ONNX Runtime"
    finding = _needed(name, "onnxruntime", "pip install --force-reinstall onnxruntime", lambda _: import_onnxruntime())
    if finding.status == "broken":
        return finding
    providers = import_onnxruntime().get_available_providers()
    if "CPUExecutionProvider" not in providers:
        detail = f"{finding.detail}, without its CPU provider (has {', '.join(providers) or 'none'})"
        return Finding(name, "broken", detail, "pip install --force-reinstall onnxruntime", required=True)
    return Finding(name, "ok", f"{finding.detail}, providers {', '.join(providers)}", required=True)


def _default_model() -> Finding:
    name = "default model"
    try:
        manifest = open_bundle(default_bundle()).manifest
    except SamrtError as error:
        return Finding(
            name, "broken", str(error), "install samrt again; in a checkout: git checkout samrt/default.samrt"
        )
    return Finding(name, "ok", f"{manifest.variant}, {manifest.geometry.encoder_side} pixels, whole")


def _export_package(module: str) -> Finding:
    name = f"export: {module}"
    version = version_of(module)
    if version is None:
        return Finding(name, "missing", "needed only to export checkpoints", install_extra("export"))
    pinned = _pinned(module)
    # A build's own label, as in 2.13.0+cpu, does not count.
    if pinned is not None and version.partition("+")[0] != pinned:
        return Finding(name, "broken", f"{version}, but exporting needs {pinned}", install_extra("export"))
    return Finding(name, "ok", version)


def _pinned(module: str) -> str | None:
    """The one version of a package that samrt's export extra allows; None where it allows several."""
    try:
        requirements = importlib.metadata.requires("samrt") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    pin = re.compile(rf"""{module}==([^\s;]+)\s*;.*extra == ["']export["']""")
    return next((match[1] for requirement in requirements if (match := pin.match(requirement))), None)


def _onnxruntime_backend(onnxruntime: Finding) -> Finding:
    if onnxruntime.status == "ok":
        return Finding("backend onnxruntime", "ok", "on the CPU")
    return Finding("backend onnxruntime", "missing", f"cannot run here without {onnxruntime.name}")
