"""Lists of data sets beside tiny pictures: COCO's JSON, instances and panoptic, and index.json of a folder."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.mutations import mutate_json
from PIL import Image

from samrt import SamrtError
from samrt.evaluation.datasets import fingerprint, open_data_sets, survey
from samrt.evaluation.truths import Truth

_SIZES = {"a.png": (12, 9), "sub/b.png": (7, 30), "c.png": (1, 1)}
_SQUARE = [1, 1, 6, 1, 6, 6, 1, 6]
_ENDS = (0, -1, 5, 8.5, 1e-300, 2**20, -(2**20), 2**31, 1e300, 2**53, 10**400)
_SEGMENTATIONS: tuple[Any, ...] = (
    [_SQUARE],
    _SQUARE,
    [_SQUARE, [3.5, 2.5, 8, 8, 1, 8]],
    {"size": [12, 9], "counts": [20, 30, 40, 18]},
    {"size": [12, 9], "counts": "d0N23O"},
    [{"size": [12, 9], "counts": [0, 108]}, {"size": [12, 9], "counts": [108]}],
    {"size": [12.0, 9], "counts": [20.0, 88]},
    {"size": [10**5, 10**5], "counts": [10**10]},
    {"size": [12, 9], "counts": [2**62, 2**62]},
    [[0, 0, 2**20, 2**20, 0, 2**20] * 40],
    [[1e-320, 5, 5, 5, 5, 1e-320]],
    [[0] * 5],
    [[[_SQUARE]]],
    [],
    [[]],
    "",
    None,
)
_NAMES = ("../a.png", "/etc/passwd", "C:\\a.png", "https://x/a.png", "..", ".", "a.png/", "./a.png", "sub\\b.png", "\0")


def corpus(folder: Path) -> list[bytes]:
    images = [{"id": i, "file_name": name, "height": h, "width": w} for i, (name, (h, w)) in enumerate(_SIZES.items())]
    notes = [{"id": 5, "image_id": 0, "iscrowd": 0, "segmentation": [_SQUARE], "area": 25, "bbox": [1, 1, 5, 5]}]
    files: list[Any] = [{"images": images, "annotations": [{**notes[0], "segmentation": s}]} for s in _SEGMENTATIONS]
    files += [{"images": [{**images[0], "file_name": name}, *images[1:]], "annotations": notes} for name in _NAMES]
    segments = [{"id": 1, "iscrowd": 0}, {"id": 65537, "iscrowd": 1}]
    panoptic = {"image_id": 0, "file_name": "a.png", "segments_info": segments}
    files.append({"images": images[:1], "annotations": [panoptic]})
    files.append({"images": images, "annotations": [panoptic, {**panoptic, "image_id": "1", "segments_info": []}]})
    index = {"images": [{"file": "a.png", "masks": ["a.png"]}, {"file": "sub/b.png", "masks": []}]}
    files += [index, {"images": [{"file": "../../a.png", "masks": ["./a.png", "a.png"]}]}]
    return [*(json.dumps(each).encode() for each in files), b"\xef\xbb\xbf{}", b"[" * 2000, b""]


def setup(folder: Path) -> Path:
    """Pictures beside the JSON file, as panoptic maps in a folder of its name, and as a folder with an index."""
    for place in ("", "set", "indexed/images", "indexed/masks"):
        for name, (height, width) in _SIZES.items():
            path = folder / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            ids = np.zeros((height, width), np.uint8)
            ids[: height // 2, : width // 2] = 1
            Image.fromarray(ids if place.endswith("masks") else np.dstack([ids, 0 * ids, ids // 2])).save(path)
    return folder


def run(data: bytes, state: Path) -> str:
    as_folder = b'"annotations"' not in data
    path = state / ("indexed/index.json" if as_folder else "set.json")
    path.write_bytes(data)
    try:
        (found,) = open_data_sets(path.parent if as_folder else path)
        surveyed = survey(found)
        assert len(fingerprint(found)) == 64
    except SamrtError as error:
        return type(error).__name__
    instances = 0
    for item in found.items:
        with Image.open(item.image) as picture:
            size = picture.height, picture.width
        truths = item.read(size)
        instances += len(truths.instances)
        for truth in truths.instances:
            mask = truth.mask()
            assert (truth.size, mask.shape, mask.dtype) == (size, size, np.bool_)
            assert truth.area == mask.sum() > 0
            assert as_folder or _has_area(truth, json.loads(data.removeprefix(b"\xef\xbb\xbf"))["annotations"])
    assert surveyed.instances == instances > 0
    assert as_folder or all(item.image.resolve().is_relative_to(state.resolve()) for item in found.items)
    return "taken-folder" if as_folder else "taken"


def _has_area(truth: Truth, annotations: list[Any]) -> bool:
    """Whether the area is that of its run lengths, where these are a list and of an annotation of one name."""
    own = [each for each in annotations if str(each.get("id")) == truth.name]
    segmentation = own[0].get("segmentation") if len(own) == 1 else None
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), list):
        return True
    return truth.area == sum(segmentation["counts"][1::2])


def mutate(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.6:
        return mutate_json(data, rng)
    try:
        whole = json.loads(data)
        note = rng.choice(whole["annotations"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return mutate_json(data, rng)
    segmentation = note.get("segmentation")
    kind = rng.randrange(4)
    if kind == 0 and isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list):
        # Runs that still fill the picture.
        cuts = sorted(rng.randint(0, 108) for _ in range(rng.randint(1, 8)))
        segmentation["counts"] = [b - a for a, b in zip([0, *cuts], [*cuts, 108], strict=True)]
    elif kind == 1:
        points = [rng.choice((rng.randint(-5, 40), rng.uniform(-9, 40))) for _ in range(2 * rng.randint(2, 20))]
        points[rng.randrange(len(points))] = rng.choice(_ENDS)
        note["segmentation"] = [points, _SQUARE]
    elif kind == 2:
        note["segmentation"] = rng.choice(_SEGMENTATIONS)
    else:
        rng.choice(whole["images"])["file_name"] = rng.choice((*_NAMES, *_SIZES))
    return json.dumps(whole).encode()
