"""COCO's JSON files: the three ways to write a mask as pycocotools reads them, instances and panoptic."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_json import changed
from evaluation_data import HEIGHT, WIDTH, random_ids, random_image, rectangle
from PIL import Image
from pycocotools import mask as coco

from samrt import InputError
from samrt.evaluation.coco import open_coco
from samrt.evaluation.coco_masks import segmentation_mask
from samrt.evaluation.datasets import fingerprint, open_data_sets, survey
from samrt.evaluation.reading import read_frame
from samrt.evaluation.truths import Truths

# pycocotools' arrays do not know numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = HEIGHT, WIDTH
POLYGONS = [[10.5, 5.0, 40.0, 8.2, 30.3, 50.9], [60, 10, 80, 10, 80, 30, 60, 30]]


def runs_of(mask: np.ndarray) -> dict[str, Any]:
    flat = mask.ravel(order="F")
    runs, value = [0], False
    for pixel in flat:
        if pixel != value:
            runs.append(0)
            value = bool(pixel)
        runs[-1] += 1
    return {"size": list(mask.shape), "counts": runs}


def test_polygons_are_drawn_as_coco_draws_them() -> None:
    expected = coco.decode(coco.merge(coco.frPyObjects(POLYGONS, *SIZE)))

    np.testing.assert_array_equal(segmentation_mask(POLYGONS, SIZE, "it"), expected)
    assert segmentation_mask([], SIZE, "it").sum() == 0


def test_an_outline_that_pycocotools_has_no_memory_for_is_left_out() -> None:
    zigzag = [n for index in range(700) for n in (index % 2 * 2**20, index)]
    with pytest.raises(
        InputError, match=r"it has outlines of 73\d,\d+,\d+ pixels, and samrt draws 21,784 at most in an image"
    ):
        segmentation_mask([zigzag], SIZE, "it")
    # A few bytes, and far shorter than what a large image may have.
    with pytest.raises(InputError, match=r"it has outlines of 100,000 pixels"):
        segmentation_mask([[0, 0, 50_000, 0, 0, 0]], SIZE, "it")
    assert segmentation_mask([[0, 0, 5_000, 0, 5_000, 2, 0, 2]], SIZE, "it").sum() == 2 * SIZE[1]


def test_deeply_nested_annotations_are_an_error_of_samrt(tmp_path: Path) -> None:
    Image.fromarray(random_image(0)).save(tmp_path / "a.png")
    annotation = {"id": 1, "image_id": 1, "iscrowd": 0, "segmentation": "here"}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [annotation],
    }
    nested = "[" * 900 + "]" * 900
    (tmp_path / "a.json").write_text(json.dumps(content).replace('"here"', nested))
    with pytest.raises(InputError, match=r"nested deeper|not valid JSON"):
        survey(open_data_sets(tmp_path / "a.json")[0])


@pytest.mark.parametrize("seed", range(3))
def test_lists_of_runs_are_read_as_coco_reads_them(seed: int) -> None:
    mask = random_ids(seed) > 0
    mask[0, 0] = seed == 1  # then the first run is of no zeros
    runs = runs_of(mask)
    np.testing.assert_array_equal(coco.decode(coco.frPyObjects(runs, *SIZE)), mask)

    np.testing.assert_array_equal(segmentation_mask(runs, SIZE, "it"), mask)


def test_compressed_strings_are_read_as_coco_reads_them() -> None:
    mask = random_ids(4) > 0
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))

    np.testing.assert_array_equal(segmentation_mask({**rle, "counts": rle["counts"].decode()}, SIZE, "it"), mask)


def test_polygons_without_pycocotools_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)

    with pytest.raises(InputError, match=r"pip install 'samrt\[eval\]'"):
        segmentation_mask(POLYGONS, SIZE, "annotation 3")
    assert segmentation_mask(runs_of(random_ids(0) > 0), SIZE, "it").any()


@pytest.mark.parametrize(
    "segmentation",
    [
        "polygon",
        [[1, 2, 3, 4, 5]],
        [[1, 2, 3, 4, 5, None]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[1, 2, 3, 4, 5, 10**400]],
        [[1, 2, 3, 4, 5, True]],
        [[1, 2, 1e8, 4, 5, 6]],
        [[1, 2, -(2**21), 4, 5, 6]],
        {"size": [HEIGHT, WIDTH], "counts": [5, 5]},
        {"size": [HEIGHT, WIDTH], "counts": [-1, HEIGHT * WIDTH + 1]},
        {"size": HEIGHT, "counts": [HEIGHT * WIDTH]},
        {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]},
        {"size": [HEIGHT, WIDTH], "counts": "!!"},
        {"counts": [5]},
        # Of more memory than there is, of more than an integer of numpy's holds, and of the right number of pixels.
        {"size": [10**6, 10**7], "counts": [10**13]},
        {"size": [2**40, 2**40], "counts": [2**80]},
        {"size": [WIDTH, HEIGHT], "counts": coco.encode(np.zeros((WIDTH, HEIGHT), np.uint8, "F"))["counts"].decode()},
    ],
)
def test_damaged_masks_are_refused_and_named(segmentation: Any) -> None:
    with pytest.raises(InputError, match="annotation 3"):
        segmentation_mask(segmentation, SIZE, "annotation 3")


# files


def write_images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        Image.fromarray(random_image(seed)).save(folder / name)


@pytest.fixture
def instances(tmp_path: Path) -> Path:
    """Laid out as COCO's archives unpack: annotations/instances_val2017.json beside val2017/."""
    write_images(tmp_path / "val2017", "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(instances_content()))
    return path


def instances_content() -> dict[str, Any]:
    images = [
        {"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT},
        {"id": 3, "file_name": "b.jpg", "width": WIDTH, "height": HEIGHT},
        {"id": 5, "file_name": "c.jpg"},
    ]
    rle = coco.encode(np.asfortranarray(rectangle(3, 4, 20, 21).astype(np.uint8)))
    annotations = [
        {"id": 1, "image_id": 3, "iscrowd": 0, "segmentation": POLYGONS},
        {"id": 2, "image_id": 7, "iscrowd": 0, "segmentation": {**rle, "counts": rle["counts"].decode()}},
        {"id": 3, "image_id": 7, "iscrowd": 1, "segmentation": runs_of(rectangle(0, 0, 50, 50))},
        {"id": 4, "image_id": 7, "segmentation": runs_of(rectangle(30, 40, 50, 50))},
        {"id": 5, "image_id": 7, "segmentation": [[10.1, 10.1, 10.2, 10.1, 10.2, 10.2]]},
    ]
    return {"images": images, "annotations": annotations}


def truths_of(path: Path, **folders: Any) -> dict[str, Truths]:
    return {item.name: item.read(SIZE) for item in open_coco(path, **folders).items}


def test_instances_are_read_and_crowds_counted(instances: Path) -> None:
    data_set = open_coco(instances)
    truths = truths_of(instances)

    assert data_set.name == "instances_val2017"
    assert [item.image for item in data_set.items] == [instances.parent.parent / "val2017" / f"{n}.jpg" for n in "abc"]
    assert [truth.name for truth in truths["a.jpg"].instances] == ["2", "4"]
    np.testing.assert_array_equal(truths["a.jpg"].instances[0].mask(), rectangle(3, 4, 20, 21))
    np.testing.assert_array_equal(truths["a.jpg"].instances[1].mask(), rectangle(30, 40, 50, 50))
    assert truths["a.jpg"].left_out == {"crowd regions": 1, "annotations without a pixel": 1}
    assert [truth.name for truth in truths["b.jpg"].instances] == ["1"]
    assert truths["c.jpg"].instances == []


def test_the_folder_of_the_pictures_can_be_named(instances: Path, tmp_path: Path) -> None:
    (tmp_path / "val2017").rename(tmp_path / "elsewhere")

    with pytest.raises(InputError, match=r"a\.jpg .*; name the folder that it is in \(images\)"):
        open_coco(instances)
    assert open_coco(instances, images=tmp_path / "elsewhere").items[0].image == tmp_path / "elsewhere" / "a.jpg"


def _two_images_of_one_id(content: dict[str, Any]) -> None:
    content["images"][1]["id"] = 7


def _image_without_name(content: dict[str, Any]) -> None:
    del content["images"][0]["file_name"]


def _two_images_of_one_name(content: dict[str, Any]) -> None:
    content["images"][1]["file_name"] = "a.jpg"


def _strange_id(content: dict[str, Any]) -> None:
    content["images"][0]["id"] = [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_two_images_of_one_id, "two images with the id 7"),
        (_image_without_name, "file_name"),
        (_two_images_of_one_name, r"lists a\.jpg twice"),
        (_strange_id, "must be a number or text"),
        (lambda content: content.pop("annotations"), "not a COCO file"),
        (lambda content: content.update(images={}), "'images' of .* must be list"),
        (lambda content: content["annotations"].append(3), "must be a JSON object"),
    ],
)
def test_files_that_contradict_themselves_are_refused(
    instances: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    content = instances_content()
    change(content)
    instances.write_text(json.dumps(content))

    with pytest.raises(InputError, match=message):
        open_data_sets(instances)


@pytest.mark.parametrize("name", ["a\0.jpg", "a\ud800.jpg"])
def test_a_name_that_no_file_can_have_is_named(instances: Path, name: str) -> None:
    content = instances_content()
    content["images"][1]["file_name"] = name
    instances.write_text(json.dumps(content))
    (data_set,) = open_data_sets(instances)

    with pytest.raises(InputError, match="complete the data set"):
        fingerprint(data_set)
    with pytest.raises(InputError, match="no image file"):
        read_frame(data_set.items[1].image)


def test_an_annotation_that_is_there_twice_is_refused(instances: Path) -> None:
    content = instances_content()
    content["annotations"][3]["id"] = 2
    instances.write_text(json.dumps(content))

    with pytest.raises(InputError, match=r"lists the instance 2 of a\.jpg twice"):
        survey(open_data_sets(instances)[0])


def test_an_image_of_another_size_than_the_list_says_is_refused(instances: Path) -> None:
    item = open_coco(instances).items[0]

    with pytest.raises(InputError, match=r"a\.jpg in its list is 90x60 and its image 80x60"):
        item.read((60, 80))


def test_a_mask_folder_is_for_panoptic_files(instances: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a panoptic file.*; leave masks out"):
        open_coco(instances, masks=tmp_path)


@pytest.fixture
def panoptic(tmp_path: Path) -> Path:
    write_images(tmp_path, "a.jpg")
    ids = np.zeros(SIZE, np.int64)
    numbers = 5, 300, 2 + 256 * 3 + 65536 * 4, 77
    for index, number in enumerate(numbers):
        ids[10 * index : 10 * index + 10, 20:70] = number
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
    (tmp_path / "panoptic").mkdir()
    Image.fromarray(colours).save(tmp_path / "panoptic" / "a.png")
    segments = [{"id": number, "iscrowd": int(number == 77), "area": 500} for number in numbers]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
    }
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps(content))
    return path


def test_panoptic_maps_are_read_by_colour(panoptic: Path) -> None:
    truths = truths_of(panoptic)["a.jpg"]

    assert [truth.name for truth in truths.instances] == ["a.png#5", "a.png#300", "a.png#262914"]
    for index, truth in enumerate(truths.instances):
        np.testing.assert_array_equal(truth.mask(), rectangle(20, 10 * index, 70, 10 * index + 10))
    assert truths.left_out == {"crowd regions": 1}


def test_the_folder_of_the_maps_can_be_named(panoptic: Path, tmp_path: Path) -> None:
    (tmp_path / "panoptic").rename(tmp_path / "maps")

    with pytest.raises(InputError, match="there is no image file"):
        truths_of(panoptic)
    assert len(truths_of(panoptic, masks=tmp_path / "maps")["a.jpg"].instances) == 3


@pytest.mark.parametrize("name", ["../../a.png", "/x/a.png", "C:\\x\\a.png", "file:///x/a.png"])
def test_no_name_of_a_map_leaves_its_folder(panoptic: Path, name: str) -> None:
    panoptic.write_text(changed(panoptic.read_text(), "annotations", 0, "file_name", to=name))
    (data_set,) = open_data_sets(panoptic)
    assert data_set.items[0].files == (panoptic.parent / "panoptic" / "a.png",)
    assert "1 of 1 masks are named by an absolute path" in data_set.notes[0]


@pytest.mark.parametrize("size", [(61, 90), (6000, 9000)])
def test_a_map_of_another_size_is_not_decoded(
    panoptic: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    Image.new("RGB", size[::-1]).save(panoptic.parent / "panoptic" / "a.png", format="PPM")
    monkeypatch.setattr("samrt.images.picture.Picture.load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(InputError, match="annotations are never resized"):
        truths_of(panoptic)


def test_a_segment_without_pixels_and_a_grey_map_are_refused(panoptic: Path, tmp_path: Path) -> None:
    content = json.loads(panoptic.read_text())
    content["annotations"][0]["segments_info"].append({"id": 1234})
    panoptic.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"a\.png has no pixel of its segment 1234"):
        truths_of(panoptic)

    Image.fromarray(random_ids(0)).save(tmp_path / "panoptic" / "a.png")
    with pytest.raises(InputError, match="a panoptic map is RGB"):
        truths_of(panoptic)


def test_what_is_unlabelled_is_no_segment(panoptic: Path) -> None:
    content = json.loads(panoptic.read_text())
    content["annotations"][0]["segments_info"].append({"id": 0})
    panoptic.write_text(json.dumps(content))

    with pytest.raises(InputError, match=r"'id' of .* must be a positive integer, not 0"):
        truths_of(panoptic)


def test_a_panoptic_map_that_is_a_jpeg_is_refused(panoptic: Path, tmp_path: Path) -> None:
    path = tmp_path / "panoptic" / "a.png"
    Image.open(path).save(path, format="JPEG")

    with pytest.raises(InputError, match=r"a\.png is a JPEG file"):
        truths_of(panoptic)
