"""Writing masks as a data set in COCO's format, which pycocotools, FiftyOne, CVAT and `samrt.evaluation` read.

The format is that of cocodataset.org/#format-data, with compressed run lengths and a `score` for each annotation.

    writer = samrt.CocoWriter()
    writer.add("photos/a.jpg", (height, width), [rle.encode(mask)], [score])
    writer.write("set.json")
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samrt.bundle.contract import Size
from samrt.errors import InputError, OutputError
from samrt.files import path_of, replacing_file
from samrt.rle import area_and_box

_DESCRIPTION = "masks predicted by samrt"
# By which such a file is known again: it is the first thing in it.
MARK = f'"description": "{_DESCRIPTION}"'.encode()


class CocoWriter:
    """Collects images with their masks, and writes them to one file."""

    def __init__(self, category: str = "object") -> None:
        """Begin a data set.

        Args:
            category: the name of the one category that all masks get: SAM tells objects apart, not kinds of them.
        """
        self._category = category
        self._images: list[tuple[Path, Size]] = []
        self._annotations: list[dict[str, Any]] = []
        self._known: set[Path] = set()

    def add(
        self,
        image: str | os.PathLike[str],
        size: Size,
        masks: Sequence[Mapping[str, object]],
        scores: Sequence[float],
    ) -> int:
        """Add an image. A mask without a pixel is left out: it has no box.

        Args:
            image: its file.
            size: (H, W), as it is shown: with its EXIF orientation applied.
            masks: N masks of this size as `rle.encode` gives them.
            scores: N, the predicted IoU of each, from 0 to 1.

        Returns:
            How many masks were added.

        Raises:
            InputError: the image was added before, a mask is damaged or of another size, or there are not as many
                scores as masks.
        """
        path = Path(os.path.abspath(path_of(image, "the image")))
        if path in self._known:
            raise InputError(f"the image {image} is given twice; add it once, with all its masks")
        if len(masks) != len(scores):
            raise InputError(f"{len(masks)} masks of {image} have {len(scores)} scores; give one for each")
        added = []
        for mask, score in zip(masks, scores, strict=True):
            if mask.get("size") != list(size):
                raise InputError(f"a mask of {image} is of the size {mask.get('size')}, not {list(size)}")
            area, box = area_and_box(mask)
            if area:
                added.append({"segmentation": dict(mask), "area": area, "bbox": list(box), "score": float(score)})
        self._known.add(path)
        self._images.append((path, size))
        for each in added:
            ids = {"id": len(self._annotations) + 1, "image_id": len(self._images), "category_id": 1}
            self._annotations.append({**ids, "iscrowd": 0, **each})
        return len(added)

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the file. One that samrt wrote is replaced; with `overwrite`, any.

        Images are named from the folder of the file if they lie in it or below, as in `images/a.jpg`; else all are
        named from the innermost folder that holds them.

        Raises:
            OutputError: it could not be written, or is there and not samrt's; what was there before is untouched.
        """
        names = _names(
            [image for image, _ in self._images], Path(os.path.abspath(path_of(path, "the output", OutputError))).parent
        )
        content = {
            "info": {"description": _DESCRIPTION, "version": "1.0"},
            "licenses": [],
            "categories": [{"id": 1, "name": self._category, "supercategory": ""}],
            "images": [
                {"id": number, "file_name": name, "width": width, "height": height}
                for number, (name, (_, (height, width))) in enumerate(zip(names, self._images, strict=True), start=1)
            ],
            "annotations": self._annotations,
        }
        with replacing_file(path, None if overwrite else MARK) as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _names(images: Sequence[Path], folder: Path) -> list[str]:
    """How the images are called from a folder above all of them, with slashes on every system."""
    if not images:
        return []
    if not all(image.is_relative_to(folder) for image in images):
        folder = Path(os.path.commonpath([image.parent for image in images]))
    return [image.relative_to(folder).as_posix() for image in images]
