"""Data sets to one file that fits everywhere: photographs made smaller, as JPEG, and their id maps as PNG.

    python -m training.pack DATA -o .cache/packed.npz

DATA holds one folder per data set, with `images/`, `masks/` (PNG of instance ids, 0 unlabelled) and `index.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from samrt.bundle.contract import Geometry, Normalization, resize_shape
from samrt.errors import InputError, OutputError, SamrtError
from samrt.files import check_target, replacing_file, sha256_of
from samrt.geometry import resize_image


@dataclass(frozen=True)
class Encoding:
    """How photographs are made smaller: the longer side in pixels, a file suffix, and OpenCV's options for it."""

    side: int
    suffix: str
    options: tuple[int, ...]


JPEG = Encoding(448, ".jpg", (cv2.IMWRITE_JPEG_QUALITY, 82))


@dataclass(frozen=True)
class Picture:
    """One annotated photograph, decoded when it is first used.

    Attributes:
        encoded: the bytes of the image's file and of each id map's.
    """

    encoded: tuple[NDArray[np.uint8], ...]

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] RGB."""
        return _rgb(self._decoded(0, cv2.IMREAD_COLOR))

    @cached_property
    def id_maps(self) -> tuple[NDArray[np.uint8], ...]:
        """uint8 [H, W] each, 0 unlabelled; one per annotator."""
        return tuple(self._decoded(index, cv2.IMREAD_UNCHANGED) for index in range(1, len(self.encoded)))

    def _decoded(self, index: int, flags: int) -> NDArray[np.uint8]:
        pixels = cv2.imdecode(self.encoded[index], flags)
        if pixels is None:
            raise InputError("a packed picture is damaged; create the file again with `python -m training.pack`")
        return pixels  # type: ignore[return-value]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.npz")
    arguments = parser.parse_args()
    try:
        pack(arguments.data, arguments.output)
    except SamrtError as error:
        print(f"training.pack: {error}", file=sys.stderr)
        return 1
    print(
        f"{arguments.output}: {arguments.output.stat().st_size / 2**20:.1f} MiB, sha256 {sha256_of(arguments.output)}"
    )
    return 0


def pack(data: Path, output: Path, encoding: Encoding = JPEG) -> None:
    """Write the packed file; the same data gives the same bytes.

    Raises:
        InputError: there is no data set, or a file of it is missing or damaged.
        OutputError: the file cannot be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {output.parent}: {error.strerror}; choose another place") from error
    check_target(output)
    indices = sorted(data.glob("*/index.json"))
    if not indices:
        raise InputError(f"there is no data set in {data}: none of its folders holds an index.json")
    side = encoding.side
    frame = Geometry(side, side, side // 4, Normalization("min_max"))  # only its resizing is used
    content: dict[str, NDArray[np.uint8]] = {}
    for index in indices:
        try:
            entries = [(entry["file"], entry["masks"]) for entry in json.loads(index.read_text("utf-8"))["images"]]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{index} does not list images with their masks ({error!r}); copy it again") from error
        for number, (file, masks) in enumerate(entries):
            key = f"{index.parent.name}/{number:05d}"
            image = resize_image(_rgb(_read(index.parent / "images" / file, cv2.IMREAD_COLOR)), frame)
            content[f"{key}/image"] = _encoded(encoding.suffix, image[:, :, ::-1], encoding.options)
            for annotator, name in enumerate(masks):
                ids = _renumbered(_read(index.parent / "masks" / name, cv2.IMREAD_UNCHANGED))
                height, width = resize_shape(*ids.shape, side)
                ids = cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
                content[f"{key}/ids{annotator}"] = _encoded(".png", ids, [cv2.IMWRITE_PNG_COMPRESSION, 9])
        print(f"{index.parent.name}: {len(entries)} images", file=sys.stderr)
    with replacing_file(output) as fresh:
        np.savez(fresh, **content)


def unpack(path: Path) -> dict[str, list[Picture]]:
    """Every picture of a packed file, by data set.

    Raises:
        InputError: the file is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"there is no packed data at {path}; create it with `python -m training.pack`")
    pictures: dict[str, list[Picture]] = {}
    try:
        with np.load(path, allow_pickle=False) as content:
            for name, members in _grouped(content.files):
                pictures.setdefault(name, []).append(Picture(tuple(content[member] for member in members)))
    except Exception as error:  # numpy raises anything for a damaged file
        raise InputError(f"{path} is damaged ({error}); create it again with `python -m training.pack`") from error
    return pictures


def _grouped(names: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The members of each picture, its image first, with the name of its data set."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition("/")[0], []).append(name)
    for key, members in groups.items():
        yield key.partition("/")[0], sorted(members, key=lambda name: ("ids" in name, name))


def _read(path: Path, flags: int) -> NDArray[np.uint8]:
    pixels = cv2.imread(str(path), flags)
    if pixels is None:
        raise InputError(f"{path} is missing or damaged; copy it again")
    return pixels  # type: ignore[return-value]


def _rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """OpenCV's BGR, [H, W, 3], to RGB."""
    return np.ascontiguousarray(image[:, :, ::-1])


def _renumbered(ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Ids 1, 2, ... in one byte; a map with more than 255 of them loses the smallest regions."""
    values, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    order = [int(i) for i in np.argsort(-counts, kind="stable") if values[i] != 0][:255]
    table = np.zeros(len(values), np.uint8)
    table[order] = np.arange(1, len(order) + 1)
    return table[inverse].reshape(ids.shape)


def _encoded(kind: str, pixels: NDArray[np.uint8], options: Sequence[int]) -> NDArray[np.uint8]:
    return cv2.imencode(kind, pixels, options)[1]  # type: ignore[return-value]


if __name__ == "__main__":
    sys.exit(main())
