"""samrt's TensorRT plugin: the names of its node in graphs of the `plugin` lowering, and the library that computes it.

The library is not put into plans: they stay small, and a library for another GPU or TensorRT can take its place. It is
loaded before a plan is opened, and engine.json says which plans need it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from samrt.errors import BackendError
from samrt.kernels import KERNELS_VERSION, Kernels, find_plugin_library, load_kernels
from samrt.tensorrt.flavours import Flavour

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


def prepare_plugin(flavour: Flavour, progress: Callable[[str], None]) -> None:
    """All that comes before building a graph with the plugin's node: find the library, test its kernels, load it.

    The test runs on the current GPU, which is the one that TensorRT builds for.

    Raises:
        BackendError: this flavour has no plugins, the library is missing or of another version, or a kernel computes
            something else than it should.
    """
    if flavour.is_rtx:
        raise BackendError(
            f"{flavour.title} has no plugins, so it cannot build the {PLUGIN_LOWERING} form: build with --backend "
            f"tensorrt on the GPU that will run it, or export the checkpoint with {EXPORT_WITHOUT_PLUGIN}"
        )
    kernels = find_plugin()
    progress(f"testing the kernels in {kernels.path} on this GPU")
    try:
        kernels.self_test()
    except BackendError as error:
        raise BackendError(
            f"the kernels in {kernels.path} failed their own test on this GPU: {error}. Nothing was built; check that "
            f"the library was compiled for this GPU (it has {', '.join(kernels.architectures)}), or export the "
            f"checkpoint with {EXPORT_WITHOUT_PLUGIN}, which needs no plugin"
        ) from error
    register_plugin(flavour)


@functools.cache
def register_plugin(flavour: Flavour) -> None:
    """Load the plugin's library into TensorRT, for good: engines may need it until the process ends.

    Raises:
        BackendError: the library is missing or of another version, or TensorRT refuses it.
    """
    path = find_plugin().path
    registry = flavour.module.get_plugin_registry()
    if registry.load_library(str(path)) is None and not _is_registered(registry):
        raise BackendError(
            f"{flavour.title} cannot load samrt's plugin from {path}; check that the library was compiled with the "
            "headers of this major version of TensorRT: in a checkout of samrt, pip install . compiles it again"
        )


def _is_registered(registry: Any) -> bool:
    # No library is loaded twice, and the caller's program may have done it.
    return registry.get_creator(PLUGIN_NAME, PLUGIN_VERSION, PLUGIN_NAMESPACE) is not None
