"""The image encoder's work: prepared images to the features of an embedding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.backends.session import Session
from samrt.bundle.contract import Geometry, Size, Tensor
from samrt.bundle.manifest import Manifest
from samrt.bundle.precisions import PRECISIONS
from samrt.embedding import Features, Region, check_region
from samrt.errors import BackendError, InputError, Remedy
from samrt.geometry import normalize_and_pad, resize_image
from samrt.images import ImageSource, read_image, read_part


def read_region(
    image: ImageSource, image_format: str, region: Region | None
) -> tuple[NDArray[np.uint8], Size, Region | None]:
    """The pixels of an image's region, uint8 [h, w, 3] RGB, the image's size (H, W), and the region as integers.

    Only the region is converted, and of an array only the region is checked: a small one of a large picture is cheap.

    Raises:
        InputError: the image or the region cannot be used.
    """
    if region is None:
        pixels = read_image(image, image_format)
        return pixels, (pixels.shape[0], pixels.shape[1]), None
    return read_part(image, image_format, lambda size: check_region(region, size))


class Encoder:
    """The image encoder of a loaded bundle."""

    def __init__(self, session: Session, manifest: Manifest) -> None:
        self._session = session
        self._geometry = manifest.geometry
        self._names = [feature.name for feature in manifest.features]
        self._outputs = manifest.contract.image_encoder("").outputs

    @property
    def images_per_call(self) -> int:
        """How many images go through the engine at once."""
        return self._session.encoder.max_lengths.get("batch", 1)

    def run(self, images: Any) -> Features:
        """Features, by name and on the device where there is one, of prepared images, float32 [B, 3, S, S] RGB.

        Raises:
            InputError: with a TensorRT backend, the array is of another dtype or on another GPU.
            BackendError: the encoder failed, or its result is not finite or of another shape.
        """
        features = self._session.encoder.run({"image": images}, on_device=self._names)
        # What has no shape is one image (`check_prepared`).
        check_shapes("encoder", features, self._outputs, getattr(images, "shape", (1,))[0])
        # What stays on the device is not fetched for this: a NaN in it is one in the masks.
        if not all(np.isfinite(each).all() for each in features.values() if isinstance(each, np.ndarray)):
            raise not_finite("encoder", self._session.choice.form.precision)
        # ONNX Runtime keeps all memory of a session, 700 MB and more, as long as an array in it is in use.
        return {name: each.copy() if isinstance(each, np.ndarray) else each for name, each in features.items()}

    def run_batch(self, images: Sequence[ImageSource], image_format: str) -> Iterator[tuple[Features, Size]]:
        """Features of each image, and its size (H, W). As many images go through the engine at once as it takes.

        Raises:
            InputError: an image cannot be used.
            BackendError: as `run`.
        """
        geometry = self._geometry
        for start in range(0, len(images), self.images_per_call):
            pixels = [read_image(image, image_format) for image in images[start : start + self.images_per_call]]
            features = self.run(
                np.concatenate([normalize_and_pad(resize_image(each, geometry), geometry) for each in pixels])
            )
            for index, each in enumerate(pixels):
                yield {name: feature[index : index + 1] for name, feature in features.items()}, each.shape[:2]

    def check_resized(self, height: int, width: int) -> None:
        """Raises InputError unless an image resized for the encoder has this size."""
        if not self._geometry.fills((height, width), self._geometry.encoder_side):
            raise InputError(
                f"the resized image is {width}x{height} (width x height), for this model it must have "
                f"{described(self._geometry, self._geometry.encoder_side)}; see Model.geometry"
            )

    def check_prepared(self, image: Any, input_size: Any) -> None:
        """Raises InputError unless an array is a prepared image, and `input_size` is one in the prompts' frame."""
        geometry = self._geometry
        S = geometry.encoder_side
        shape = getattr(image, "shape", None)  # what has none is the engine's to check
        if shape is not None and tuple(shape) != (1, 3, S, S):
            raise InputError(
                f"a prepared image must have the shape [1, 3, {S}, {S}], not {list(shape)}; pad it to that"
            )
        try:
            fits = geometry.fills(input_size, geometry.prompt_side)
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise InputError(
                "input_size must be (height, width) of the image as resized for the prompts, of "
                f"{described(geometry, geometry.prompt_side)}, not {input_size}"
            )


def shows(geometry: Geometry, input_size: Size, size: Size) -> bool:
    """Whether an image of this size (H, W) may have this `input_size`.

    It may be off by a pixel, as others round it, or be the whole square, to which a caller stretched the image.
    """
    expected = geometry.input_size(*size)
    side = geometry.prompt_side
    return input_size == (side, side) or all(abs(a - b) <= 1 for a, b in zip(input_size, expected, strict=True))


def check_shapes(graph: str, outputs: Mapping[str, Any], declared: Sequence[Tensor], count: int) -> None:
    """Raises BackendError unless what the "encoder" or the "decoder" returned for `count` has its declared shapes."""
    for tensor in declared:
        expected = (count, *tensor.shape[1:])
        found = tuple(outputs[tensor.name].shape)
        if found != expected:
            raise BackendError(
                f"the {graph} returned {tensor.name} of the shape {list(found)} for {count} at once, not "
                f"{list(expected)}; export the checkpoint again"
            )


def described(geometry: Geometry, side: int) -> str:
    """The size of an image in a frame of this side, in words."""
    return f"the longer side {side}" if geometry.resize == "longest_side" else f"the size {side}x{side}"


def not_finite(graph: str, precision: str) -> BackendError:
    """The error for a result with NaN or infinity of the "encoder" or the "decoder"."""
    if precision == next(iter(PRECISIONS)):  # the most exact
        remedy = Remedy("look for extreme values in what it was given, else export again from a sound checkpoint")
    else:
        remedy = Remedy("export it with {precisions}", {"precisions": ("fp32",)})
    return BackendError(f"the {graph} returned NaN or infinity in {precision}", remedy)
