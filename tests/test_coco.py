"""Masks written as a COCO data set are what pycocotools and `samrt eval` read back, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_data import HEIGHT, WIDTH, random_ids, random_image, rectangle
from PIL import Image
from pycocotools.coco import COCO

from samrt import CocoWriter, InputError, OutputError, rle
from samrt.evaluation.datasets import open_data_sets, survey

# pycocotools' arrays do not know numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = HEIGHT, WIDTH
FULL, NONE = np.ones(SIZE, np.bool_), np.zeros(SIZE, np.bool_)


def write(folder: Path, masks: dict[str, list[Any]], target: str = "set.json", **options: Any) -> Path:
    writer = CocoWriter(**options)
    for seed, (name, of_image) in enumerate(masks.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_image(seed)).save(folder / name)
        scores = [0.5 + 0.1 * index for index in range(len(of_image))]
        assert writer.add(folder / name, SIZE, list(map(rle.encode, of_image)), scores) == sum(
            m.any() for m in of_image
        )
    writer.write(folder / target)
    return folder / target


MASKS = {
    "a.png": [random_ids(0) == 1, random_ids(0) > 0, FULL],
    "b.png": [rectangle(0, 0, 1, 1)],
    "c.png": [],
}


def test_pycocotools_reads_every_mask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(str(write(tmp_path, MASKS, category="cup")))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == list(MASKS)
    assert coco.loadCats(coco.getCatIds(catNms=["cup"]))[0]["id"] == 1
    for number, masks in enumerate(MASKS.values(), start=1):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[number], iscrowd=False))
        assert len(annotations) == len(masks)
        for index, (annotation, mask) in enumerate(zip(annotations, masks, strict=True)):
            np.testing.assert_array_equal(coco.annToMask(annotation), mask)
            assert annotation["area"] == mask.sum()
            assert tuple(annotation["bbox"]) == rle.bounding_box(mask)
            assert annotation["score"] == pytest.approx(0.5 + 0.1 * index)


def test_samrt_eval_reads_every_mask(tmp_path: Path) -> None:
    (data_set,) = open_data_sets(write(tmp_path, MASKS))
    assert survey(data_set).left_out == {}
    for item, masks in zip(data_set.items, MASKS.values(), strict=True):
        truths = item.read(SIZE).instances
        assert len(truths) == len(masks)
        for truth, mask in zip(truths, masks, strict=True):
            np.testing.assert_array_equal(truth.mask(), mask)


def test_empty_masks_are_left_out_and_ids_go_on(tmp_path: Path) -> None:
    content = json.loads(write(tmp_path, {"a.png": [NONE, FULL], "b.png": [NONE], "c.png": [FULL]}).read_text())
    assert [(each["id"], each["image_id"]) for each in content["annotations"]] == [(1, 1), (2, 3)]
    assert len(content["images"]) == 3


@pytest.mark.parametrize(
    ("images", "target", "names"),
    [
        (["in/a.png", "in/b/c.png"], "in/set.json", ["a.png", "b/c.png"]),
        (["in/a.png", "in/b.png"], "set.json", ["in/a.png", "in/b.png"]),
        (["in/x/a.png", "in/y/b.png"], "out/set.json", ["x/a.png", "y/b.png"]),
        (["in/x/a.png"], "out/set.json", ["a.png"]),
    ],
)
def test_images_are_named_from_the_file_or_their_own_folder(
    tmp_path: Path, images: list[str], target: str, names: list[str]
) -> None:
    (tmp_path / "out").mkdir()
    content = json.loads(write(tmp_path, {name: [FULL] for name in images}, target).read_text())
    assert [image["file_name"] for image in content["images"]] == names


def test_only_its_own_file_is_replaced(tmp_path: Path) -> None:
    path = write(tmp_path, MASKS)
    CocoWriter().write(path)
    assert json.loads(path.read_text())["images"] == []
    path.write_text('{"images": []}')
    with pytest.raises(OutputError, match="samrt did not write it"):
        CocoWriter().write(path)
    CocoWriter().write(path, overwrite=True)


def test_what_does_not_fit_is_refused() -> None:
    writer = CocoWriter()
    writer.add("a.png", SIZE, [], [])
    with pytest.raises(InputError, match=r"a\.png is given twice"):
        writer.add("./a.png", SIZE, [], [])
    with pytest.raises(InputError, match=r"of the size \[60, 90\], not \[90, 60\]"):
        writer.add("b.png", (WIDTH, HEIGHT), [rle.encode(FULL)], [1.0])
    with pytest.raises(InputError, match=r"1 masks of b\.png have 2 scores"):
        writer.add("b.png", SIZE, [rle.encode(FULL)], [1.0, 0.5])
