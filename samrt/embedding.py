"""Image embeddings: what the encoder made of one image, to keep, save and prompt again."""

from __future__ import annotations

import math
import operator
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.bundle.contract import Size
from samrt.device.array import DeviceArray
from samrt.errors import BundleError, InputError
from samrt.files import path_of, replacing_file
from samrt.images.limits import MAX_PIXELS

_FORMAT_VERSION = 2
_MARK = b"samrt-embedding"
# Before the name of a feature in a saved file.
_FEATURE = "feature:"

# What OpenCV, which resizes masks, counts pixels of a side with.
_LARGEST_SIDE = 2**31 - 1

Region = tuple[int, int, int, int]  # x0, y0, x1, y1; the last column and row are x1 - 1 and y1 - 1
WHOLE: Region = (0, 0, 0, 0)  # stands for the whole image, until its size is known
Features = Mapping[str, NDArray[np.float32] | DeviceArray]


@dataclass(frozen=True, eq=False)
class Embedding:
    """One encoded image, or a region of one.

    Attributes:
        features: by name, float32 [1, ...]; `DeviceArray` where a GPU made them, which np.asarray copies to the host.
        original_size: (H, W) of the image.
        input_size: (h, w) of the image, or its region, in the frame that the decoder takes prompts in, without
            padding: the longer side is the model's prompt side.
        model_id: which checkpoint at which input size made it; bundles of other precisions share it.
        region: x0, y0, x1, y1 in pixels of the original image, what of it was seen; the whole image when left out.

    Raises:
        InputError: the attributes are not of these forms.
    """

    features: Features
    original_size: Size
    input_size: Size
    model_id: str
    region: Region = WHOLE

    def __post_init__(self) -> None:
        if not isinstance(self.features, Mapping) or not self.features:
            raise InputError("features of an embedding must be a mapping of names; use what Model.encode returned")
        for name, feature in self.features.items():
            if (
                not isinstance(feature, np.ndarray | DeviceArray)
                or feature.dtype != np.float32
                or len(feature.shape) < 2
                or feature.shape[0] != 1
            ):
                raise InputError(
                    f"the feature {name} of an embedding must be a float32 array [1, ...]; use what Model.encode "
                    "returned"
                )
        if not isinstance(self.model_id, str):
            raise InputError(f"model_id of an embedding must be text, not {type(self.model_id).__name__}")
        # Lists and numpy's integers become what comparisons expect; the class is frozen.
        for name in ("original_size", "input_size"):
            object.__setattr__(self, name, _size(name, getattr(self, name)))
        height, width = self.original_size
        # By identity: a given region that is empty is an error.
        region = (0, 0, width, height) if self.region is WHOLE else self.region
        object.__setattr__(self, "region", check_region(region, self.original_size))
        object.__setattr__(self, "features", dict(self.features))

    @property
    def region_size(self) -> Size:
        """(H, W) of the region."""
        x0, y0, x1, y1 = self.region
        return y1 - y0, x1 - x0

    @property
    def is_whole(self) -> bool:
        """Whether the region is the whole image."""
        return self.region_size == self.original_size

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a NumPy .npz file (of the name given) that `load` reads.

        Args:
            path: the file. A saved embedding that is there is replaced.
            overwrite: replace any other file too.

        Raises:
            OutputError: it cannot be written, or is another file; what was there is untouched.
        """
        with replacing_file(path, None if overwrite else _MARK) as temporary, temporary.open("wb") as file:
            content: dict[str, Any] = {
                # The first, so that the file is known by its beginning.
                "format": np.array(_MARK),
                "format_version": np.int64(_FORMAT_VERSION),
                "original_size": np.array(self.original_size, np.int64),
                "input_size": np.array(self.input_size, np.int64),
                "region": np.array(self.region, np.int64),
                "model_id": np.array(self.model_id),
                **{f"{_FEATURE}{name}": np.asarray(feature) for name, feature in self.features.items()},
            }
            np.savez(file, **content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embedding:
        """Read what `save` wrote. Nothing in the file is executed, and it takes no more memory than it has bytes.

        Raises:
            BundleError: there is no such file, it is damaged, it is not an embedding, or its image has more pixels than
                an image file may have.
        """
        path = path_of(path, "the embedding", BundleError)
        try:
            if not path.is_file():
                raise BundleError(f"there is no embedding at {path}; check the path, or save one with Embedding.save")
            _check_members(path)
            with np.load(path, allow_pickle=False) as content:
                version = content["format_version"].item()
                if version != _FORMAT_VERSION:
                    raise BundleError(
                        f"the embedding {path} has format version {version}, this samrt reads {_FORMAT_VERSION}; "
                        "encode the image again"
                    )
                names = [name for name in content.files if name.startswith(_FEATURE)]
                height, width = (int(side) for side in content["original_size"])
                if height * width > MAX_PIXELS:
                    raise BundleError(
                        f"the embedding {path} is of an image of {width}x{height} pixels, and samrt reads "
                        f"{MAX_PIXELS:,} at most; encode parts of the image"
                    )
                # Sizes that are no integers are refused by the class.
                return cls(
                    features={name.removeprefix(_FEATURE): content[name] for name in names},
                    original_size=content["original_size"].tolist(),
                    input_size=content["input_size"].tolist(),
                    model_id=content["model_id"].item(),
                    region=content["region"].tolist(),
                )
        except BundleError:
            raise
        except Exception as error:
            # For a damaged file numpy raises anything, from BadZipFile to tokenize's errors and MemoryError.
            raise BundleError(f"{path} is not a whole embedding ({error}); encode and save the image again") from error


def _check_members(path: Path) -> None:
    """Refuse, before an array is made, an archive that `save` did not write or whose arrays claim more than it has."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise BundleError(f"{path} is compressed, which Embedding.save never does; encode the image again")
        # Members may overlap, and a member's own header may claim any shape.
        claimed = max(sum(member.file_size for member in members), *(_claim(archive, member) for member in members))
    if claimed > size:
        raise BundleError(
            f"the arrays of {path} claim {claimed:,} bytes, but the file has {size:,}: it is damaged or made to "
            "mislead; encode the image again"
        )


def _claim(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """How many bytes the array in a member has by its header."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return math.prod(shape) * dtype.itemsize


def check_region(region: object, original_size: Size) -> Region:
    """A region of an image of `original_size` (H, W) as four integers.

    Raises:
        InputError: it is not x0, y0, x1, y1, it is empty or inverted, or it leaves the image.
    """
    height, width = original_size
    try:
        x0, y0, x1, y1 = map(operator.index, region)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise InputError(
            f"region must be four whole numbers x0, y0, x1, y1 in pixels of the image, not {region!r}"
        ) from None
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InputError(
            f"the region {x0},{y0},{x1},{y1} is not a part of the image of {width}x{height} (width x height); give "
            f"0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}"
        )
    return x0, y0, x1, y1


def _size(name: str, given: Size) -> Size:
    try:
        height, width = map(operator.index, given)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1 or max(height, width) > _LARGEST_SIDE:
        raise InputError(f"{name} of an embedding must be (height, width) of 1 to {_LARGEST_SIDE:,}, not {given}")
    return height, width
