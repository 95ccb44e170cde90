"""samrt's TensorRT plugin: the names of its node in graphs of the `plugin` lowering, and the library that computes it.

The library is not put into plans: they stay small, and a library for another GPU or TensorRT can take its place. It is
loaded before a plan is opened, and engine.json says which plans need it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from samrt.bundle.graph_check import PLUGIN_NAME
from samrt.engines.flavours import Flavour
from samrt.engines.logger import log_error
from samrt.engines.rtx_plugins import make_library_name_known, why_untried
from samrt.errors import BackendError, Reason, Remedy
from samrt.kernels.library import KERNELS_VERSION, PLUGIN_VARIABLE, Kernels, find_plugin_library, load_kernels
from samrt.processes import ForkSafeLock
from samrt.progress import Progress

if TYPE_CHECKING:
    from samrt.device.gpus import Gpu

# The form of a model whose attention is this node.
PLUGIN_LOWERING = "plugin"
# As the plugin's creator in kernels/plugin says; TensorRT's parser looks it up by these and `PLUGIN_NAME`.
PLUGIN_VERSION = "1"
PLUGIN_NAMESPACE = ""
# Of kernels/attention/instances.def; a test compares.
HEAD_DIMS = (64, 80)
OLDEST_CAPABILITY = (8, 0)  # of cmake/cuda_architectures.cmake

_registering = ForkSafeLock()

# What `export` takes for a bundle whose engines have the plugin, with a form to compare them with; and for one that
# needs no plugin.
WITH_PLUGIN = {"precisions": ("fp32", "fp16"), "lowering": ("auto", "plugin")}
WITHOUT_PLUGIN = {"precisions": ("fp32", "fp16"), "lowering": ("auto", "augmented")}


@dataclass(frozen=True)
class RequiredPlugin:
    """What engines need besides TensorRT: a plugin, from a library whose kernels are of one version."""

    name: str
    version: str
    kernels_version: int

    def __str__(self) -> str:
        return f"plugin {self.name} {self.version} with kernels of version {self.kernels_version}"


# What this samrt builds with and runs.
PLUGIN = RequiredPlugin(PLUGIN_NAME, PLUGIN_VERSION, KERNELS_VERSION)


def find_plugin() -> Kernels:
    """The plugin's library, loaded into this process but not into TensorRT yet.

    Raises:
        BackendError: there is none, it does not load, is no plugin's, or its kernels are of another version; with the
            remedy.
    """
    try:
        kernels = load_kernels(find_plugin_library())
    except BackendError as error:
        raise BackendError(f"samrt's TensorRT plugin cannot be used: {error.facts}", error.remedy) from error
    if not kernels.is_plugin:
        raise BackendError(
            f"{kernels.path} holds kernels and no TensorRT plugin: correct or unset {PLUGIN_VARIABLE}, which names it"
        )
    return kernels


def prepare_plugin(flavour: Flavour, compute_capabilities: Sequence[str], progress: Progress) -> None:
    """All that comes before building a graph with the plugin's node: find the library, test its kernels, load it.

    The test runs on the first GPU that is one to build for; TensorRT for RTX builds without a GPU too.

    Args:
        compute_capabilities: what is built for, as "8.9".
        progress: is told each step, in one line: `samrt.Lines(print)` prints it.

    Raises:
        BackendError: the library is missing, of another version or not for one of these GPUs, a kernel computes
            something else than it should, or this TensorRT does not take it.
    """
    from samrt.device.gpus import find_gpus

    if flavour.is_rtx and (untried := why_untried(flavour.version)):
        raise BackendError(untried, Remedy("or export the checkpoint with {precisions} and {lowering}", WITHOUT_PLUGIN))
    kernels = find_plugin()
    for capability in compute_capabilities:
        if reason := why_not_for(kernels, capability):
            raise BackendError(reason.facts, reason.remedy)
    gpu = next((gpu for gpu in find_gpus() if gpu.compute_capability in compute_capabilities), None)
    if gpu is None:
        wanted = ", ".join(compute_capabilities)
        progress.say(f"kernels not tested: no usable GPU of compute capability {wanted} was found; see `samrt doctor`")
    else:
        progress.say(f"testing the kernels in {kernels.path} on {gpu.name}")
        _test(kernels, gpu)
    register_for_parser(flavour)


def register_for_parser(flavour: Flavour) -> None:
    """`register_plugin`, so that this flavour's parser finds it too.

    Raises:
        BackendError: as `register_plugin`; or TensorRT for RTX does not find its own library.
    """
    if flavour.is_rtx:
        make_library_name_known(flavour.version, find_plugin().path)
    register_plugin(flavour)


def why_not_for(kernels: Kernels, compute_capability: str) -> Reason | None:
    """Why a plugin's library has nothing for GPUs of a compute capability; None where it has."""
    if kernels.runs_on(compute_capability):
        return None
    if tuple(map(int, compute_capability.split("."))) < OLDEST_CAPABILITY:
        return Reason(
            f"samrt's plugin needs compute capability {'.'.join(map(str, OLDEST_CAPABILITY))} or newer, and this is "
            f"{compute_capability}",
            Remedy("leave it out, or export the checkpoint with {precisions} and {lowering}", WITHOUT_PLUGIN),
        )
    return Reason(
        f"the plugin in {kernels.path} has kernels for {', '.join(kernels.architectures)}, which do not run on compute "
        f"capability {compute_capability}",
        Remedy(
            "leave it out, or compile the plugin for it; in a checkout of samrt: "
            "SAMRT_CUDA_ARCHITECTURES=all pip install ."
        ),
    )


def _test(kernels: Kernels, gpu: Gpu) -> None:
    from samrt.device.driver import primary_context

    try:
        with primary_context(gpu.index):
            kernels.self_test()
    except BackendError as error:
        raise BackendError(
            f"the kernels in {kernels.path} failed their own test on {gpu.name}: {error.facts}. Nothing was built",
            Remedy(
                f"check that the library was compiled for this GPU (it has {', '.join(kernels.architectures)}), or "
                "export the checkpoint without the plugin, with {precisions} and {lowering}",
                WITHOUT_PLUGIN,
            ),
        ) from error


def register_plugin(flavour: Flavour) -> None:
    """Load the plugin's library into TensorRT, for good: engines may need it until the process ends.

    Raises:
        BackendError: the library is missing or of another version, or TensorRT refuses it.
    """
    with _registering.here():
        _register(flavour)


@functools.cache
def _register(flavour: Flavour) -> None:
    kernels = find_plugin()
    registry = flavour.module.get_plugin_registry()
    if registry.load_library(str(kernels.path)) is None and not _is_registered(registry):
        raise BackendError(
            f"{flavour.title} rejects samrt's plugin in {kernels.path}",
            Remedy(
                "please report this, and export the checkpoint with {precisions} and {lowering} meanwhile",
                WITHOUT_PLUGIN,
            ),
        )
    kernels.on_plugin_error(log_error)


def _is_registered(registry: Any) -> bool:
    # No library is loaded twice, and the caller's program may have done it.
    return registry.get_creator(PLUGIN_NAME, PLUGIN_VERSION, PLUGIN_NAMESPACE) is not None
