"""Image embeddings: what the encoder made of one image, to keep, save and prompt again."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samrt.device.array import DeviceArray
from samrt.errors import BundleError, InputError
from samrt.files import replacing_file
from samrt.geometry import Size

_FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class Embedding:
    """One encoded image.

    Attributes:
        features: float32 [1, C, h, w]; a `DeviceArray` where a GPU made it, which np.asarray copies to the host.
        original_size: (H, W) of the image.
        input_size: (h, w) of the image as resized for the model, without padding.
        model_id: which checkpoint at which input size made it; bundles of other precisions share it.

    Raises:
        InputError: the attributes are not of these forms.
    """

    features: NDArray[np.float32] | DeviceArray
    original_size: Size
    input_size: Size
    model_id: str

    def __post_init__(self) -> None:
        features = self.features
        if (
            not isinstance(features, np.ndarray | DeviceArray)
            or features.dtype != np.float32
            or len(features.shape) != 4
            or features.shape[0] != 1
        ):
            raise InputError(
                "features of an embedding must be a float32 array [1, C, h, w]; use what Model.encode returned"
            )
        for name in ("original_size", "input_size"):
            given = getattr(self, name)
            try:
                size = tuple(map(operator.index, given))
            except TypeError:
                size = ()
            if len(size) != 2 or min(size) < 1:
                raise InputError(f"{name} of an embedding must be (height, width) of at least 1x1, not {given}")
            # Lists and numpy's integers become what comparisons expect; the class is frozen.
            object.__setattr__(self, name, size)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a NumPy .npz file (of the name given) that `load` reads.

        Raises:
            OutputError: it cannot be written; a file that was there is untouched.
        """
        with replacing_file(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                format_version=np.int64(_FORMAT_VERSION),
                features=np.asarray(self.features),
                original_size=np.array(self.original_size, np.int64),
                input_size=np.array(self.input_size, np.int64),
                model_id=np.array(self.model_id),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embedding:
        """Read what `save` wrote. Nothing in the file is executed.

        Raises:
            BundleError: there is no such file, it is damaged, or it is not an embedding.
        """
        path = Path(path)
        try:
            if not path.is_file():
                raise BundleError(f"there is no embedding at {path}; check the path, or save one with Embedding.save")
            with np.load(path, allow_pickle=False) as content:
                version = int(content["format_version"])
                if version != _FORMAT_VERSION:
                    raise BundleError(
                        f"the embedding {path} has format version {version}, this samrt reads {_FORMAT_VERSION}; "
                        "encode the image again"
                    )
                height, width = content["original_size"].tolist()
                input_height, input_width = content["input_size"].tolist()
                return cls(
                    features=content["features"],
                    original_size=(int(height), int(width)),
                    input_size=(int(input_height), int(input_width)),
                    model_id=str(content["model_id"]),
                )
        except BundleError:
            raise
        except Exception as error:
            # For a damaged file numpy raises anything, from BadZipFile to tokenize's errors and MemoryError.
            raise BundleError(f"{path} is not a whole embedding ({error}); encode and save the image again") from error
