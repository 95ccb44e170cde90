"""What the figures were measured on: device, driver, clocks, memory, packages."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata

import kernel_build
from driver import Driver
from work import Work

_PACKAGES = (
    "samrt", "tensorrt", "tensorrt-rtx", "tensorrt-rtx-cu13", "cuda-core", "cuda-bindings", "torch", "triton", "cupy",
    "cupy-cuda13x", "cupy-cuda12x", "pycuda", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu",
    "numpy", "opencv-python-headless", "pillow", "pytest",
)  # fmt: skip
_QUERY = "name,driver_version,vbios_version,pstate,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"


def run(work: Work) -> None:
    work.record("machine", value=_machine())
    work.record("packages", value=_packages())
    if work.smoke:
        return
    work.record("device", value=Driver().describe())
    work.attempt("nvidia_smi", call=_nvidia_smi)
    work.attempt("doctor", call=_doctor)


def _machine() -> dict[str, object]:
    return {
        "platform": platform.platform(terse=True),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _nvidia_smi() -> dict[str, str]:
    if shutil.which("nvidia-smi") is None:
        raise FileNotFoundError("nvidia-smi was not found")
    command = ["nvidia-smi", "--id=0", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return dict(zip(_QUERY.split(","), answer.split(", "), strict=True))


def _doctor() -> list[str]:
    from samrt.doctor.runtime import examine

    # Results are published, and where the checkout lay on that machine is nobody's business.
    checkout = f"{kernel_build.ROOT}{os.sep}"
    return [f"{finding.status}  {finding.name}: {finding.detail}".replace(checkout, "") for finding in examine()]
