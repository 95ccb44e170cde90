"""samrt: promptable segmentation (Segment Anything) without torch.

    model = samrt.load()  # the model that comes with samrt; or a bundle of your own
    embedding = model.encode("photo.jpg")
    prediction = model.predict(embedding, point_coords=[[420, 310]], point_labels=[1])

The names below are imported when they are first used, so that `import samrt` costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from samrt.errors import BackendError, BundleError, InputError, OutputError, SamrtError

if TYPE_CHECKING:
    from samrt.bundle.default import default_bundle
    from samrt.decoding import Prediction
    from samrt.device.array import DeviceArray
    from samrt.device.session import DeviceOptions
    from samrt.embedding import Embedding
    from samrt.geometry import ResizeLongestSide
    from samrt.model import Model, load
    from samrt.predictor import SamPredictor
    from samrt.scribble import Scribble

    __version__: str

_HOMES = {
    "DeviceArray": "samrt.device.array",
    "DeviceOptions": "samrt.device.session",
    "Embedding": "samrt.embedding",
    "Model": "samrt.model",
    "Prediction": "samrt.decoding",
    "ResizeLongestSide": "samrt.geometry",
    "SamPredictor": "samrt.predictor",
    "Scribble": "samrt.scribble",
    "default_bundle": "samrt.bundle.default",
    "load": "samrt.model",
}

__all__ = [
    "BackendError",
    "BundleError",
    "DeviceArray",
    "DeviceOptions",
    "Embedding",
    "InputError",
    "Model",
    "OutputError",
    "Prediction",
    "ResizeLongestSide",
    "SamPredictor",
    "SamrtError",
    "Scribble",
    "__version__",
    "default_bundle",
    "load",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("samrt")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'samrt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
