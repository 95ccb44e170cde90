"""Whether samrt's own CUDA kernels and its TensorRT plugin are here, and fit this machine's GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from samrt.doctor.findings import Finding
from samrt.engines.rtx_plugins import NAME_LIBRARY
from samrt.errors import BackendError
from samrt.kernels.library import (
    KERNELS_VARIABLE,
    PLUGIN_VARIABLE,
    find_kernels_library,
    find_plugin_library,
    load_kernels,
    why_absent,
)

if TYPE_CHECKING:
    from samrt.device.gpus import Gpu


def examine_kernels(gpus: Sequence[Gpu]) -> list[Finding]:
    """One line for each of the two libraries. The installed ones are loaded, and no GPU is touched.

    One that a variable names is not: loading runs its code, and whoever looks into an installation may be looking for
    where that variable comes from.
    """
    return [_examine("kernels", gpus), _examine("plugin", gpus)]


def _examine(what: Literal["kernels", "plugin"], gpus: Sequence[Gpu]) -> Finding:
    name = {"kernels": "CUDA kernels", "plugin": "TensorRT plugin"}[what]
    variable = KERNELS_VARIABLE if what == "kernels" else PLUGIN_VARIABLE
    named = bool(os.environ.get(variable))
    try:
        path = find_kernels_library() if what == "kernels" else find_plugin_library()
    except BackendError as error:
        if named:
            return Finding(name, "broken", str(error))
        return Finding(name, "missing", *why_absent(what))
    if named:
        return Finding(name, "ok", f"{path}, which {variable} names; not loaded here, so its version is not known")
    return _loaded(name, what, path, gpus)


def _loaded(name: str, what: Literal["kernels", "plugin"], path: Path, gpus: Sequence[Gpu]) -> Finding:
    try:
        kernels = load_kernels(path)
    except BackendError as error:
        return Finding(name, "broken", str(error))
    detail = f"version {kernels.version}, for {', '.join(kernels.architectures)}, {path}"
    strangers = [gpu for gpu in gpus if not kernels.runs_on(gpu.compute_capability)]
    if what == "plugin" and not kernels.is_plugin:
        return Finding(name, "broken", f"{path} holds kernels and no plugin; install samrt again")
    if what == "plugin" and not path.with_name(NAME_LIBRARY).is_file():
        lacking = f"{detail}; {NAME_LIBRARY} is missing beside it, so TensorRT-RTX cannot build with it"
        return Finding(name, "broken", lacking, "copy both libraries, or install samrt again")
    if strangers:
        listed = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in strangers)
        remedy = "in a checkout of samrt, on this machine: SAMRT_CUDA_ARCHITECTURES=native pip install ."
        return Finding(name, "broken", f"{detail}; not for {listed}", remedy)
    return Finding(name, "ok", detail)
