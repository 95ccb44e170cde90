"""COCO files as annotation tools write them: one odd entry is counted and named, and the others are evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_data import HEIGHT, WIDTH, Heard, random_image, read_results, rectangle
from PIL import Image
from toy_bundle import write_toy_bundle

from samrt import InputError, rle
from samrt.evaluation import Contender, Options, evaluate
from samrt.evaluation.datasets import open_data_sets, survey
from samrt.evaluation.truths import Truth

# pycocotools' arrays do not know numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SQUARE = [[10, 10, 40, 10, 40, 40, 10, 40]]
RUNS = [HEIGHT * 5, HEIGHT * 3, HEIGHT * (WIDTH - 8)]


def content(*annotations: dict[str, Any], **image: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT, **image}],
        "annotations": [{"id": i, "image_id": 1, "category_id": 1, **a} for i, a in enumerate(annotations, start=1)],
    }


def write(folder: Path, data: dict[str, Any], picture: str = "a.png", name: str = "set.json") -> Path:
    for path in (folder / picture, folder / name):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random_image(0)).save(folder / picture)
    (folder / name).write_text(json.dumps(data))
    return folder / name


def truths(path: Path, images: Path | None = None) -> list[Truth]:
    (data_set,) = open_data_sets(path, images)
    return data_set.items[0].read((HEIGHT, WIDTH)).instances


@pytest.mark.parametrize(
    "image",
    [
        {"width": float(WIDTH), "height": float(HEIGHT)},
        {"width": str(WIDTH), "height": str(HEIGHT)},
        {"width": None, "height": 0},
        {"id": "1"},
        {"id": 1.0},
    ],
)
def test_sizes_and_ids_as_tools_write_them(tmp_path: Path, image: dict[str, Any]) -> None:
    assert len(truths(write(tmp_path, content({"segmentation": SQUARE}, **image)))) == 1


def test_another_size_is_refused_in_any_writing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{WIDTH + 1}x{HEIGHT} and its image"):
        truths(write(tmp_path, content({"segmentation": SQUARE}, width=float(WIDTH + 1))))


@pytest.mark.parametrize(
    ("written", "picture"),
    [
        ("images\\a.png", "images/a.png"),
        ("images\\a.png", "a.png"),
        (".\\train\\a.png", "train/a.png"),
        ("C:\\Users\\me\\a.png", "a.png"),
        ("C:\\Users\\me\\a.png", "images/a.png"),
        ("/home/me/a.png", "a.png"),
        ("..\\..\\upload\\1\\a.png", "images/a.png"),
        ("https://example.org/data/a.png", "images/a.png"),
        ("train/a.png", "a.png"),
    ],
)
def test_names_of_another_machine_are_found_in_the_folder(tmp_path: Path, written: str, picture: str) -> None:
    path = write(tmp_path, content({"segmentation": SQUARE}, file_name=written), picture)
    (data_set,) = open_data_sets(path)
    assert data_set.items[0].image == tmp_path / picture
    leads_out = ":" in written or ".." in written or written.startswith("/")
    assert [("which is not followed" in note) for note in data_set.notes] == [True] * leads_out


@pytest.mark.parametrize("absolute", [True, False])
def test_names_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path, absolute: bool) -> None:
    Image.fromarray(random_image(0)).save(tmp_path / "secret.png")
    written = str(tmp_path / "secret.png") if absolute else "../../secret.png"
    path = write(tmp_path / "in" / "set", content({"segmentation": SQUARE}, file_name=written))
    with pytest.raises(InputError, match=r"secret\.png of .* is in none of .*images"):
        open_data_sets(path)


@pytest.mark.parametrize("written", ["..", "a/..", "../..", "/", "\\\\", ".", "./.", "C:\\.."])
def test_a_name_of_which_nothing_is_left_is_refused(tmp_path: Path, written: str) -> None:
    path = write(tmp_path / "set", content({"segmentation": SQUARE}, file_name=written))
    with pytest.raises(InputError, match="is not the name of a file"):
        open_data_sets(path)


@pytest.mark.parametrize(
    "written",
    [
        "FILE:///x/a.png",
        "file:/x/a.png",
        "s3://x/a.png",
        "\\\\server\\share\\a.png",
        "//server/a.png",
        "c:/a.png",
        "b/../../a.png",
    ],
)
def test_no_name_leaves_the_folder_that_was_named(tmp_path: Path, written: str) -> None:
    write(tmp_path / "images", content())
    path = write(tmp_path / "set", content({"segmentation": SQUARE}, file_name=written), "other.png")
    (data_set,) = open_data_sets(path, tmp_path / "images")
    assert data_set.items[0].image == tmp_path / "images" / "a.png"
    assert "which is not followed" in data_set.notes[0]


def test_many_annotations_without_an_id_of_an_image_that_is_not_listed(tmp_path: Path) -> None:
    data = content({"segmentation": SQUARE})
    data["annotations"] += [{"image_id": 9} for _ in range(20_000)]
    (data_set,) = open_data_sets(write(tmp_path, data))
    assert data_set.left_out["annotations of an image that is not listed"][-1] == "number 20000 of image 9"


def test_instances_that_do_not_fit_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand masks of the largest image take a few kilobytes of JSON."""
    monkeypatch.setattr("samrt.evaluation.truths._MOST_PIXELS", 2000)
    path = write(tmp_path, content(*[{"segmentation": SQUARE}] * 3))
    with pytest.raises(InputError, match=r"up to 3 take more than 2,000 pixels together"):
        truths(path)


def test_a_name_is_not_shortened_where_two_images_would_share_it(tmp_path: Path) -> None:
    data = content({"segmentation": SQUARE}, file_name="train/a.png")
    data["images"].append({"id": 2, "file_name": "val/a.png"})
    path = write(tmp_path, data)
    with pytest.raises(InputError, match=r"train/a\.png of .* is in none of"):
        open_data_sets(path)


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("annotations/instances_default.json", "images/default/a.png"),  # CVAT
        ("annotations/instances_train.json", "images/a.png"),
        ("labels.json", "data/a.png"),  # FiftyOne
        ("train/_annotations.coco.json", "train/a.png"),  # Roboflow
        ("result.json", "images/a.png"),  # Label Studio
    ],
)
def test_the_layouts_of_annotation_tools(tmp_path: Path, name: str, picture: str) -> None:
    path = write(tmp_path, content({"segmentation": SQUARE}), picture, name)
    (data_set,) = open_data_sets(path)
    assert data_set.items[0].image == path.parent.parent / picture or data_set.items[0].image == tmp_path / picture


def of(*runs: Any, size: Any = (HEIGHT, WIDTH)) -> dict[str, Any]:
    return {"size": list(size), "counts": list(runs)}


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        (SQUARE[0], rectangle(10, 10, 40, 40)),
        ([*SQUARE, [1, 2, 3, 4], [7, 7]], rectangle(10, 10, 40, 40)),
        (of(*RUNS, size=(float(HEIGHT), float(WIDTH))), rectangle(5, 0, 8, HEIGHT)),
        (of(*map(float, RUNS)), rectangle(5, 0, 8, HEIGHT)),
        ([of(*RUNS), rle.encode(rectangle(20, 0, 30, 9))], rectangle(5, 0, 8, HEIGHT) | rectangle(20, 0, 30, 9)),
    ],
)
def test_masks_as_tools_write_them(tmp_path: Path, segmentation: Any, expected: np.ndarray) -> None:
    (truth,) = truths(write(tmp_path, content({"segmentation": segmentation})))
    np.testing.assert_array_equal(truth.mask(), expected)


BOX_ONLY, DAMAGED = "annotations without a segmentation", "annotations with a damaged segmentation"


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({}, BOX_ONLY),
        ({"segmentation": None}, BOX_ONLY),
        ({"segmentation": []}, BOX_ONLY),
        ({"segmentation": [[]]}, BOX_ONLY),
        ({"segmentation": {}}, BOX_ONLY),
        ({"segmentation": [[1, 2, 3, 4]]}, "annotations without a pixel"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, DAMAGED),
        ({"segmentation": [[1, 2, 3, None, 5, 6]]}, DAMAGED),
        ({"segmentation": "none"}, DAMAGED),
        ({"segmentation": of(5, 5)}, DAMAGED),
        ({"segmentation": of(HEIGHT * WIDTH, size=(WIDTH, HEIGHT))}, DAMAGED),
        ({"segmentation": of(0.5, HEIGHT * WIDTH - 0.5)}, DAMAGED),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "!!"}}, DAMAGED),
        ({"segmentation": SQUARE, "image_id": 9}, "annotations of an image that is not listed"),
    ],
)
def test_one_odd_annotation_is_counted_and_named(tmp_path: Path, odd: dict[str, Any], reason: str) -> None:
    (data_set,) = open_data_sets(write(tmp_path, content(odd, {"segmentation": SQUARE})))
    found = survey(data_set)
    assert found.instances == 1
    assert found.left_out == {reason: 1}
    ((named,),) = found.named.values()
    assert named.startswith("1 of ")


def test_annotations_without_ids_are_told_apart(tmp_path: Path) -> None:
    data = content({"segmentation": SQUARE}, {}, {"segmentation": of(*RUNS)})
    for annotation in data["annotations"]:
        del annotation["id"]
    (data_set,) = open_data_sets(write(tmp_path, data))
    assert [truth.name for truth in data_set.items[0].read((HEIGHT, WIDTH)).instances] == ["number 1", "number 3"]
    assert survey(data_set).named == {BOX_ONLY: ["number 2 of a.png"]}


@pytest.mark.parametrize(("value", "crowd"), [(1, True), (True, True), ("1", True), (0, False), ("0", False)])
def test_crowds_in_any_writing(tmp_path: Path, value: Any, crowd: bool) -> None:
    assert (truths(write(tmp_path, content({"segmentation": SQUARE, "iscrowd": value}))) == []) == crowd


def test_a_file_of_crowds_alone_says_so(tmp_path: Path) -> None:
    (data_set,) = open_data_sets(write(tmp_path, content(*[{"segmentation": of(*RUNS), "iscrowd": 1}] * 2)))
    with pytest.raises(InputError, match=r'left out: 2 crowd regions.*brush masks, set its "iscrowd" to 0'):
        survey(data_set)


def test_what_was_left_out_is_said_and_in_the_results(tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "bundle")
    data = content({"segmentation": SQUARE}, {}, {"segmentation": of(3)}, file_name="C:\\x\\a.png")
    heard = Heard()
    evaluate(write(tmp_path, data), Contender(bundle), tmp_path / "out", Options(prompts="box"), progress=heard)
    (results,) = read_results(tmp_path / "out")["data_sets"]
    assert results["left_out"] == {BOX_ONLY: 1, DAMAGED: 1}
    assert results["left_out_named"][BOX_ONLY] == ["2 of a.png"]
    assert "3 of a.png: annotation 3: damaged run lengths" in results["left_out_named"][DAMAGED][0]
    said = "\n".join(heard.lines)
    assert "left out 1 annotations with a damaged segmentation (3 of a.png: " in said
    assert "1 annotations without a segmentation (2 of a.png)" in said
    assert "1 of 1 images are named by an absolute path" in said
    assert results["notes"] == [line.partition(": ")[2] for line in heard.lines if "absolute" in line]
