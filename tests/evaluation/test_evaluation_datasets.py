"""Finding data sets, reading their maps, and what is said of those that cannot be used."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_json import changed
from evaluation_data import HEIGHT, WIDTH, random_ids, write_data_set
from PIL import Image

from samrt import InputError
from samrt.evaluation.datasets import fingerprint, open_data_sets, survey
from samrt.progress import Lines

SIZE = HEIGHT, WIDTH


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_data_set(tmp_path / "shapes")


def test_a_folder_is_a_data_set_and_all_maps_of_an_image_count(folder: Path) -> None:
    (data_set,) = open_data_sets(folder)

    assert data_set.name == "shapes"
    assert [item.name for item in data_set.items] == ["0.png", "1.png", "2.png"]
    maps = {item.name: item.read(SIZE).instances for item in data_set.items}
    for name, truths in maps.items():
        seeds = {"0.png": [0], "1.png": [1], "2.png": [2, 102]}[name]
        expected = [ids == i for seed in seeds for ids in [random_ids(seed)] for i in np.unique(ids) if i]
        assert len(truths) == len(expected)
        for truth, mask in zip(truths, expected, strict=True):
            np.testing.assert_array_equal(truth.mask(), mask)
    names = [truth.name for truth in maps["2.png"]]
    assert len(set(names)) == len(names)
    assert names[0] == "2_a.png#1"


def test_a_folder_of_data_sets_is_several(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_data_set(tmp_path / "many" / name)
    (tmp_path / "many" / "notes").mkdir()

    assert [each.name for each in open_data_sets(tmp_path / "many")] == ["a", "b"]


def test_a_data_set_is_named_after_its_folder_however_that_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "masks")
    assert open_data_sets(Path(".."))[0].name == "shapes"

    (tmp_path / "many").mkdir()
    for name in ("a", "b"):
        (tmp_path / "many" / name).symlink_to(folder)
    assert [each.name for each in open_data_sets(tmp_path / "many")] == ["a", "b"]


def test_a_limit_takes_the_first_images_of_each(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_data_set(tmp_path / "many" / name)

    for each in open_data_sets(tmp_path / "many", limit=2):
        assert [item.name for item in each.items] == ["0.png", "1.png"]
        assert each.available == 3


def test_the_survey_counts_and_takes_the_median(folder: Path) -> None:
    (data_set,) = open_data_sets(folder)
    ids = [random_ids(seed) for seed in (0, 1, 2, 102)]
    areas = [int((each == i).sum()) for each in ids for i in np.unique(each) if i]
    lines: list[str] = []
    found = survey(data_set, Lines(lines.append))

    assert found.instances == len(areas)
    assert found.median_area == np.median(areas)
    assert found.left_out == {}
    assert lines == [f"annotations of {data_set.name}: {done} of 3" for done in range(4)]


@pytest.mark.parametrize("kind", ["16 bit", "palette", "1 bit"])
def test_maps_of_every_kind_are_read(folder: Path, kind: str) -> None:
    ids = random_ids(0)
    image = Image.fromarray(ids.astype(np.uint16) * 300 if kind == "16 bit" else ids)
    if kind == "palette":
        image.putpalette([7, 7, 7] * 256)  # colours that say nothing of the ids
    if kind == "1 bit":
        image = Image.fromarray(ids > 0)
    image.save(folder / "masks" / "0.png")
    truths = open_data_sets(folder)[0].items[0].read(SIZE).instances

    factor = 300 if kind == "16 bit" else 1
    numbers = [1] if kind == "1 bit" else [factor * int(i) for i in np.unique(ids) if i]
    assert [truth.name for truth in truths] == [f"0.png#{number}" for number in numbers]
    assert sum(truth.area for truth in truths) == (ids > 0).sum()


def test_an_image_on_its_side_has_the_size_that_it_is_read_with(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((WIDTH, HEIGHT, 3), np.uint8)).save(folder / "images" / "0.png", exif=exif)

    found = survey(open_data_sets(folder)[0])
    assert found.instances > 0
    assert found.turned == 1


@pytest.mark.parametrize(("orientation", "turned"), [(0, 0), (1, 0), (2, 1), (3, 1), (9, 0)])
def test_images_that_keep_their_size_may_be_turned_too(folder: Path, orientation: int, turned: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(folder / "images" / "0.png", exif=exif)

    assert survey(open_data_sets(folder)[0]).turned == turned


def test_a_map_of_an_image_before_it_was_turned_is_explained(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "images" / "0.png").save(folder / "images" / "0.png", exif=exif)

    with pytest.raises(InputError, match=r"is 90x60 and its image 60x90 .* EXIF orientation"):
        survey(open_data_sets(folder)[0])


def test_maps_of_one_name_in_two_folders_are_told_apart(folder: Path) -> None:
    for person, seed in (("al", 2), ("bo", 102)):
        (folder / "masks" / person).mkdir()
        Image.fromarray(random_ids(seed)).save(folder / "masks" / person / "2.png")
    index = folder / "index.json"
    index.write_text(changed(index.read_text(), "images", 2, "masks", to=["al/2.png", "bo/2.png"]))

    names = [truth.name for truth in open_data_sets(folder)[0].items[2].read(SIZE).instances]
    assert len(set(names)) == len(names)
    assert names[0] == "al/2.png#1"
    assert names[-1].startswith("bo/2.png#")


@pytest.mark.parametrize("again", ["0.png", "./0.png"])
def test_a_map_that_is_there_twice_is_refused(folder: Path, again: str) -> None:
    index = folder / "index.json"
    index.write_text(changed(index.read_text(), "images", 0, "masks", to=["0.png", again]))

    with pytest.raises(InputError, match=r"lists the instance 0\.png#\d of 0\.png twice"):
        survey(open_data_sets(folder)[0])


def test_an_index_may_begin_with_a_byte_order_mark(folder: Path) -> None:
    index = folder / "index.json"
    index.write_text(index.read_text(), encoding="utf-8-sig")

    assert len(open_data_sets(folder)[0].items) == 3


def test_the_fingerprint_changes_with_the_files(folder: Path) -> None:
    before = fingerprint(open_data_sets(folder)[0])
    assert fingerprint(open_data_sets(folder)[0]) == before
    assert fingerprint(open_data_sets(folder, limit=2)[0]) != before

    Image.fromarray(random_ids(55, count=9)).save(folder / "masks" / "1.png")
    after = fingerprint(open_data_sets(folder)[0])
    assert after != before
    (folder / "index.json").write_text(changed((folder / "index.json").read_text(), "name", to="other"))
    assert fingerprint(open_data_sets(folder)[0]) not in (before, after)


# what cannot be used


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("images",), 3, "'images' of .* must be list"),
        (("images",), [], "lists no images"),
        (("images", 0), "a.png", "must be a JSON object"),
        (("images", 0, "file"), "", "'file' of each of 'images' .*must be text"),
        (("images", 0, "file"), "1.png", r"lists 1\.png twice"),
        (("images", 0, "masks"), "0.png", "'masks' of .* must be list"),
        (("images", 0, "masks"), [3], "'masks' of .* must be a list of file names"),
    ],
)
def test_a_damaged_index_is_named(folder: Path, keys: tuple[Any, ...], value: Any, message: str) -> None:
    index = folder / "index.json"
    index.write_text(changed(index.read_text(), *keys, to=value))

    with pytest.raises(InputError, match=message):
        open_data_sets(folder)


@pytest.mark.parametrize("text", ["{", "\xff", "[" * 100_000, "[]"])
def test_an_index_that_is_not_json_is_named(folder: Path, text: str) -> None:
    (folder / "index.json").write_bytes(text.encode("latin-1"))

    with pytest.raises(InputError, match=r"index\.json"):
        open_data_sets(folder)


def test_a_picture_in_place_of_a_data_set_is_told_from_damaged_json(folder: Path) -> None:
    with pytest.raises(InputError, match=r"0\.png is no text in UTF-8, as JSON is; name another"):
        open_data_sets(folder / "images" / "0.png")


def test_where_there_is_no_data_set_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data set at .*absent"):
        open_data_sets(tmp_path / "absent")
    with pytest.raises(InputError, match=r"holds neither index\.json nor folders with one"):
        open_data_sets(tmp_path)


def test_folders_for_json_files_are_refused_elsewhere(folder: Path, tmp_path: Path) -> None:
    for keyword in ("images", "masks"):
        with pytest.raises(InputError, match=r"is not a COCO JSON file.*; leave images and masks out"):
            open_data_sets(folder, **{keyword: tmp_path})


@pytest.mark.parametrize("key", ["file", "masks"])
@pytest.mark.parametrize("name", ["../{}", "/x/{}", "a/../../{}", "..\\{}", "C:\\{}", "file:///{}", ".."])
def test_names_that_lead_out_of_the_folder_are_refused(folder: Path, key: str, name: str) -> None:
    name = name.format("0.png")
    index = folder / "index.json"
    index.write_text(changed(index.read_text(), "images", 0, key, to=name if key == "file" else [name]))
    with pytest.raises(InputError, match="which leads out of its folder; put the file"):
        open_data_sets(folder)


def test_a_list_that_is_too_large_is_not_read(folder: Path, tmp_path: Path) -> None:
    with (folder / "index.json").open("ab") as file:
        file.truncate(2**28 + 1)  # a hole: it takes no room on the disk
    with pytest.raises(InputError, match=r"268,435,457 bytes, and samrt reads 268,435,456 .*; split it"):
        open_data_sets(folder)
    coco = tmp_path / "coco.json"
    with coco.open("wb") as file:
        file.truncate(2**31 + 1)
    with pytest.raises(InputError, match="split it"):
        open_data_sets(coco)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_and_a_device_are_not_read(folder: Path) -> None:
    index = folder / "index.json"
    for make in (lambda: os.mkfifo(index), lambda: index.symlink_to("/dev/zero")):
        index.unlink()
        make()
        with pytest.raises(InputError, match="a pipe or a device"):
            open_data_sets(folder.parent)


def test_a_map_of_another_size_is_named(folder: Path) -> None:
    Image.fromarray(random_ids(0)[:50]).save(folder / "masks" / "1.png")

    with pytest.raises(InputError, match=r"masks/1\.png is 90x50 and its image 90x60"):
        survey(open_data_sets(folder)[0])


def test_a_map_in_colours_is_named(folder: Path) -> None:
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(folder / "masks" / "1.png")

    with pytest.raises(InputError, match=r"masks/1\.png has pixels of the kind 'RGB'.*one channel"):
        survey(open_data_sets(folder)[0])


def test_pictures_that_are_no_maps_are_named(folder: Path) -> None:
    Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(SIZE)).save(folder / "masks" / "1.png")
    with pytest.raises(InputError, match=r"1\.png has 5400 different values, .* 5000 at most"):
        survey(open_data_sets(folder)[0])

    Image.fromarray(random_ids(1)).save(folder / "masks" / "1.png", format="JPEG")
    with pytest.raises(InputError, match=r"masks/1\.png is a JPEG file"):
        survey(open_data_sets(folder)[0])

    Image.fromarray(random_ids(1)).save(folder / "masks" / "1.png", format="JPEG2000")
    with pytest.raises(InputError, match=r"masks/1\.png is a JPEG2000 file"):
        survey(open_data_sets(folder)[0])

    Image.fromarray(random_ids(1)).save(folder / "masks" / "1.png", format="TIFF", compression="jpeg")
    with pytest.raises(InputError, match=r"masks/1\.png is a JPEG or WebP in a TIFF file"):
        survey(open_data_sets(folder)[0])


@pytest.mark.parametrize("name", ["images/1.png", "masks/2_b.png"])
def test_missing_and_damaged_files_are_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"no picture")
    with pytest.raises(InputError, match=name):
        survey(open_data_sets(folder)[0])

    (folder / name).unlink()
    with pytest.raises(InputError, match=name):
        survey(open_data_sets(folder)[0])
    with pytest.raises(InputError, match=name):
        fingerprint(open_data_sets(folder)[0])


def test_a_data_set_without_instances_is_refused(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path)

    with pytest.raises(InputError, match="no instance in 3 images"):
        survey(open_data_sets(folder)[0])


@pytest.mark.parametrize("name", ["...json", "..json"])
def test_a_data_set_whose_results_would_lie_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    content = {"images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 4}], "annotations": []}
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match="gives its data set the name"):
        open_data_sets(tmp_path / name)
