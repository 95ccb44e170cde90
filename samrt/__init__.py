"""samrt: promptable segmentation (Segment Anything) without torch.

    model = samrt.load()  # the model that comes with samrt; or a bundle of your own
    embedding = model.encode("photo.jpg")
    prediction = model.predict(embedding, point_coords=[[420, 310]], point_labels=[1])

The names below are imported when they are first used, so that `import samrt` costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from samrt.errors import BackendError, BundleError, ExportError, InputError, OutputError, Reason, Remedy, SamrtError
from samrt.processes import no_fork_meanwhile

if TYPE_CHECKING:
    from samrt.bundle.contract import Geometry
    from samrt.bundle.default import default_bundle
    from samrt.bundle.folder import Bundle, open_bundle
    from samrt.coco import CocoWriter
    from samrt.decoding import DeviceLowResPrediction, LowResPrediction, Prediction, RlePrediction
    from samrt.device.array import DeviceArray
    from samrt.device.session import DeviceOptions
    from samrt.embedding import Embedding
    from samrt.engines.builder.bundle import BuildRequest, build_bundle
    from samrt.engines.builder.engine import BuildOptions
    from samrt.engines.profiles import BuildLimits
    from samrt.engines.selection import Choice
    from samrt.geometry import ResizeLongestSide
    from samrt.model import Model, load
    from samrt.predictor import SamPredictor
    from samrt.progress import Lines, Progress, Silent
    from samrt.scribble import Scribble

    __version__: str

_HOMES = {
    "BuildLimits": "samrt.engines.profiles",
    "BuildOptions": "samrt.engines.builder.engine",
    "BuildRequest": "samrt.engines.builder.bundle",
    "Bundle": "samrt.bundle.folder",
    "Choice": "samrt.engines.selection",
    "CocoWriter": "samrt.coco",
    "DeviceArray": "samrt.device.array",
    "DeviceLowResPrediction": "samrt.decoding",
    "DeviceOptions": "samrt.device.session",
    "Embedding": "samrt.embedding",
    "Geometry": "samrt.bundle.contract",
    "Lines": "samrt.progress",
    "LowResPrediction": "samrt.decoding",
    "Model": "samrt.model",
    "Prediction": "samrt.decoding",
    "RlePrediction": "samrt.decoding",
    "Progress": "samrt.progress",
    "ResizeLongestSide": "samrt.geometry",
    "SamPredictor": "samrt.predictor",
    "Scribble": "samrt.scribble",
    "Silent": "samrt.progress",
    "build_bundle": "samrt.engines.builder.bundle",
    "default_bundle": "samrt.bundle.default",
    "load": "samrt.model",
    "open_bundle": "samrt.bundle.folder",
}

__all__ = [
    "BackendError",
    "BuildLimits",
    "BuildOptions",
    "BuildRequest",
    "Bundle",
    "BundleError",
    "Choice",
    "CocoWriter",
    "DeviceArray",
    "DeviceLowResPrediction",
    "DeviceOptions",
    "Embedding",
    "ExportError",
    "Geometry",
    "InputError",
    "Lines",
    "LowResPrediction",
    "Model",
    "OutputError",
    "Prediction",
    "Progress",
    "Reason",
    "Remedy",
    "ResizeLongestSide",
    "RlePrediction",
    "SamPredictor",
    "SamrtError",
    "Scribble",
    "Silent",
    "__version__",
    "build_bundle",
    "default_bundle",
    "load",
    "open_bundle",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("samrt")
    if name in _HOMES:
        # Python's lock of a module that one thread imports would stay locked in a child that another thread forks.
        with no_fork_meanwhile():
            return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'samrt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
