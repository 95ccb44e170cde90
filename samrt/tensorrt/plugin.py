"""samrt's TensorRT plugin: the names of its node in graphs of the `plugin` lowering, and the library that computes it.

The library is not put into plans: they stay small, and a library for another GPU or TensorRT can take its place. It is
loaded before a plan is opened, and engine.json says which plans need it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from samrt.errors import BackendError
from samrt.kernels import KERNELS_VERSION, Kernels, find_plugin_library, load_kernels
from samrt.tensorrt.flavours import Flavour
from samrt.tensorrt.logger import log_error
from samrt.tensorrt.rtx_plugins import make_plugins_known

# The form of a model whose attention is this node.
PLUGIN_LOWERING = "plugin"
# As the plugin's creator in kernels/plugin says; TensorRT's parser looks it up by all three.
PLUGIN_NAME = "SamrtRelPosAttention"
PLUGIN_VERSION = "1"
PLUGIN_NAMESPACE = ""
# Of kernels/attention/instances.def; a test compares.
HEAD_DIMS = (64, 80)

# What gets a bundle whose engines have the plugin, with a form to compare them with; and one that needs no plugin.
EXPORT_WITH_PLUGIN = "--precision fp32,fp16 --lowering auto,plugin"
EXPORT_WITHOUT_PLUGIN = "--precision fp32,fp16 --lowering auto,augmented"


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
        BackendError: there is none, it does not load, or its kernels are of another version; with the remedy.
    """
    try:
        return load_kernels(find_plugin_library())
    except BackendError as error:
        raise BackendError(f"samrt's TensorRT plugin cannot be used: {error}") from error


def prepare_plugin(flavour: Flavour, compute_capabilities: Sequence[str], progress: Callable[[str], None]) -> None:
    """All that comes before building a graph with the plugin's node: find the library, test its kernels, load it.

    The test runs on the current GPU, if it is one that is built for; TensorRT for RTX builds without a GPU too.

    Args:
        compute_capabilities: what is built for, as "8.9".
        progress: called with one line per step.

    Raises:
        BackendError: the library is missing, of another version or not for one of these GPUs, a kernel computes
            something else than it should, or this TensorRT does not take it.
    """
    from samrt.cuda import find_gpus

    kernels = find_plugin()
    lacking = [capability for capability in compute_capabilities if not kernels.runs_on(capability)]
    if lacking:
        raise BackendError(
            f"the plugin in {kernels.path} has kernels for {', '.join(kernels.architectures)}, which do not run on "
            f"compute capability {', '.join(lacking)}: leave those out, or compile the plugin for them; in a checkout "
            "of samrt: SAMRT_CUDA_ARCHITECTURES=all pip install ."
        )
    if any(gpu.compute_capability in compute_capabilities for gpu in find_gpus()):
        progress(f"testing the kernels in {kernels.path} on this GPU")
        _test(kernels)
    else:
        progress(f"not testing the kernels in {kernels.path}: no GPU here is one that is built for")
    register_plugin(flavour)


def _test(kernels: Kernels) -> None:
    try:
        kernels.self_test()
    except BackendError as error:
        raise BackendError(
            f"the kernels in {kernels.path} failed their own test on this GPU: {error}. Nothing was built; check that "
            f"the library was compiled for this GPU (it has {', '.join(kernels.architectures)}), or export the "
            f"checkpoint with {EXPORT_WITHOUT_PLUGIN}, which needs no plugin"
        ) from error


@functools.cache
def register_plugin(flavour: Flavour) -> None:
    """Load the plugin's library into TensorRT, for good: engines may need it until the process ends.

    Raises:
        BackendError: the library is missing or of another version, or TensorRT refuses it, or it was not tried with
            this version of TensorRT for RTX.
    """
    kernels = find_plugin()
    if flavour.is_rtx:
        make_plugins_known(flavour.version, kernels.path.parent)
    registry = flavour.module.get_plugin_registry()
    if registry.load_library(str(kernels.path)) is None and not _is_registered(registry):
        raise BackendError(
            f"{flavour.title} cannot load samrt's plugin from {kernels.path}; it takes plugins of the interface that "
            f"TensorRT 10.0 introduced: upgrade TensorRT, or export the checkpoint with {EXPORT_WITHOUT_PLUGIN}"
        )
    kernels.on_plugin_error(log_error)


def _is_registered(registry: Any) -> bool:
    # No library is loaded twice, and the caller's program may have done it.
    return registry.get_creator(PLUGIN_NAME, PLUGIN_VERSION, PLUGIN_NAMESPACE) is not None
