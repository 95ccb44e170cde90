"""`samrt segment --coco`: one data set of all images, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import samrt
from samrt.cli import main
from samrt.evaluation.datasets import open_data_sets

# pycocotools' arrays do not know numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def second(folder: Path, pixels: np.ndarray) -> np.ndarray:
    """Of second.png in the folder `other`, taller than the first."""
    turned = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    (folder / "other").mkdir()
    Image.fromarray(turned).save(folder / "other" / "second.png")
    return turned


def test_several_images_go_into_one_data_set(
    run: Run, folder: Path, bundle: Path, pixels: np.ndarray, second: np.ndarray
) -> None:
    boxes = [[5, 5, 30, 40], [20, 10, 55, 50]]
    words = [word for box in boxes for word in ("--box", ",".join(map(str, box)))]
    status, out, err = run(
        "segment",
        "photo.png",
        "other/second.png",
        "--bundle",
        bundle,
        *words,
        "--coco",
        "set.json",
        "--category",
        "cup",
    )

    assert status == 0, err
    assert sorted(path.name for path in folder.iterdir()) == ["other", "photo.png", "set.json"]
    coco = COCO("set.json")
    (data_set,) = open_data_sets(Path("set.json"))
    assert coco.cats[1]["name"] == "cup"
    assert [image["file_name"] for image in coco.imgs.values()] == ["photo.png", "other/second.png"]
    with samrt.load(bundle) as model:
        for number, image in enumerate((pixels, second), start=1):
            expected = model.predict(model.encode(image), box=boxes, multimask_output=False)
            annotations = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
            truths = data_set.items[number - 1].read(image.shape[:2]).instances
            assert len(annotations) == len(truths) == 2
            for index, (annotation, truth) in enumerate(zip(annotations, truths, strict=True)):
                np.testing.assert_array_equal(coco.annToMask(annotation), expected.masks[index, 0])
                np.testing.assert_array_equal(truth.mask(), expected.masks[index, 0])
                assert annotation["score"] == pytest.approx(float(expected.iou_predictions[index, 0]))
    assert [line.partition(": score")[0] for line in out.splitlines()] == [
        "photo.png: mask 1",
        "photo.png: mask 2",
        "other/second.png: mask 1",
        "other/second.png: mask 2",
        "wrote set.json",
    ]


def test_one_image_into_a_data_set_and_into_json_has_the_same_masks(run: Run, folder: Path, bundle: Path) -> None:
    words = "--point", "40,30", "--multimask", "--coco", "set.json", "--json", "out.json", "-o", "out.png"
    assert run("segment", "photo.png", "--bundle", bundle, *words)[0] == 0
    assert Path("out.png").exists()
    masks = json.loads(Path("out.json").read_text())["masks"]
    annotations = json.loads(Path("set.json").read_text())["annotations"]
    assert [each["segmentation"] for each in annotations] == [each["segmentation"] for each in masks if each["area"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("photo.png",), "2 images: their masks go into one data set, --coco OUT.json"),
        (("photo.png", "--coco", "a.json", "-o", "b.png"), "-o and --json are of one image"),
        (("photo.png", "--coco", "a.json", "--json", "b.json"), "-o and --json are of one image"),
        (("./photo.png", "--coco", "a.json"), "photo.png is given twice"),
        (("--coco", "photo.png"), "would be written over"),
        (("--coco", "{bundle}/set.json"), "is the bundle or lies in it"),
        (("--coco", "a.json", "--json", "a.json"), "two outputs cannot both be"),
        (("--coco", "-"), "is not written to stdout"),
        (("-", "--coco", "set.json"), "an image from stdin has no name"),
        (("--category", "cup"), "--category is of the data set of --coco"),
    ],
)
def test_wrong_usage_is_refused_before_any_work(
    folder: Path, bundle: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    words = tuple(word.format(bundle=bundle) for word in words)
    with pytest.raises(SystemExit, match="2"):
        main(["segment", "photo.png", *words, "--bundle", str(bundle), "--point", "1,2"])
    assert message in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("absent.png",), "no image file at absent.png"),
        (("other/second.png", "--point", "80,20"), "other/second.png: the point (80, 20) lies outside"),
    ],
)
def test_an_error_of_one_image_names_it_and_writes_nothing(
    run: Run, folder: Path, bundle: Path, second: np.ndarray, words: tuple[str, ...], message: str
) -> None:
    prompt = () if "--point" in words else ("--point", "10,10")
    status, _, err = run("segment", "photo.png", *words, *prompt, "--bundle", bundle, "--coco", "set.json")
    assert status == 1
    assert message in err
    assert len(err.splitlines()) == 1  # nothing was segmented before
    assert not Path("set.json").exists()


def test_a_data_set_of_the_users_is_not_replaced(run: Run, folder: Path, bundle: Path) -> None:
    Path("set.json").write_text('{"images": [], "annotations": []}')
    words = "segment", "photo.png", "--bundle", bundle, "--point", "40,30", "--coco", "set.json"
    status, _, err = run(*words)
    assert status == 1
    assert "samrt did not write it" in err
    assert run(*words, "--overwrite")[0] == 0
    assert run(*words)[0] == 0
