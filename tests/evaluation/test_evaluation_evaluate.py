"""An evaluation from data set to files, with the toy bundle: scores, what is said, comparing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from evaluation_data import IMAGES, Heard, read_results, write_data_set
from PIL import Image
from pycocotools import mask as coco

import samrt
from samrt import BundleError, InputError, OutputError
from samrt.evaluation import Contender, Options, evaluate
from samrt.evaluation.datasets import open_data_sets
from samrt.evaluation.journal import read_records
from samrt.evaluation.metrics import boundary_iou
from samrt.model import Model

pytest_plugins = ("toy_fixtures",)
# pycocotools' arrays do not know numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
# The package has a function of the module's name.
evaluation: Any = import_module("samrt.evaluation.evaluate")


def names_of(folder: Path) -> list[str]:
    return [item.name for item in open_data_sets(folder)[0].items]


def test_box_scores_are_those_of_predict_and_pycocotools(toy_bundle: Path, data: Path, tmp_path: Path) -> None:
    found = evaluate(data / "first", Contender(toy_bundle), tmp_path / "out", Options(prompts="box"))

    ious, boundaries, predicted = [], [], []
    with samrt.load(toy_bundle) as model:
        for entry in json.loads((data / "first" / "index.json").read_text())["images"]:
            embedding = model.encode(data / "first" / "images" / entry["file"])
            for name in entry["masks"]:
                ids = np.asarray(Image.open(data / "first" / "masks" / name))
                for truth in (ids == i for i in np.unique(ids) if i):
                    rows, columns = np.nonzero(truth)
                    box = [columns.min(), rows.min(), columns.max(), rows.max()]
                    prediction = model.predict(embedding, box=box, multimask_output=False)
                    pair = [coco.encode(np.asfortranarray(m.astype(np.uint8))) for m in (prediction.masks[0], truth)]
                    ious.append(coco.iou(pair[:1], pair[1:], [0])[0, 0])
                    boundaries.append(_boundary_iou(prediction.masks[0], truth))
                    predicted.append(float(prediction.iou_predictions[0]))
    (row,) = found.rows
    assert row.instances == len(ious) == 15
    assert 0.05 < row.answer.miou < 0.95  # else it says nothing
    assert row.answer.miou == pytest.approx(np.mean(ious), abs=1e-5)
    assert row.answer.boundary_miou == pytest.approx(np.mean(boundaries), abs=1e-5)
    assert row.predicted_iou == pytest.approx(np.mean(predicted), abs=1e-5)
    assert row.baselines["filled box"].miou > row.baselines["filled box"].boundary_miou > 0


def _boundary_iou(mask: np.ndarray, truth: np.ndarray) -> float:
    from evaluation_data import truth_of

    return boundary_iou(mask, truth_of(truth))


def test_everything_is_written_and_can_be_read(toy_bundle: Path, data: Path, tmp_path: Path) -> None:
    heard = Heard()
    found = evaluate(data, Contender(toy_bundle), tmp_path / "out", Options(prompts="box,points:3"), progress=heard)

    names = ["box", "points:1", "points:2", "points:3"]
    assert [(row.data_set, row.prompt) for row in found.rows] == [(s, p) for s in ("first", "second") for p in names]
    for row in found.rows:
        assert row.answer.miou <= max(row.oracle_miou, row.answer.miou)
        assert row.confident_miou <= row.oracle_miou
        if row.prompt == "points:1":
            assert row.confident_miou == row.answer.miou
    results = read_results(tmp_path / "out")
    assert results["model"]["family"] == "toy"
    assert [row["prompt"] for row in results["rows"]] == names * 2
    assert results["rows"][0]["answer"]["miou"] == pytest.approx(found.rows[0].answer.miou, abs=1e-6)
    assert results["data_sets"][0]["instances"] == found.rows[0].instances
    assert (tmp_path / "out" / "results.md").read_text().count("| first") == 4
    pictures = [f"{s}_{p}.png" for s in ("first", "second") for p in ("box", "points_1", "points_3")]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == sorted(pictures)
    for name in pictures:
        assert f"![{name}]({name})" in (tmp_path / "out" / "results.md").read_text()
    assert ("images of first", 0, IMAGES) in heard.steps
    assert ("images of second", 2, 2) in heard.steps

    # The kept masks are the answers, and pycocotools reads them.
    truths = {
        (item.name, truth.name): truth
        for item in open_data_sets(data / "first")[0].items
        for truth in item.read((60, 90)).instances
    }
    for record in read_records(tmp_path / "out" / "first" / "instances.jsonl", names_of(data / "first")):
        for instance in record["instances"]:
            for prompt in ("box", "points:1", "points:3"):
                score = instance["prompts"][prompt]
                truth = coco.encode(np.asfortranarray(truths[record["image"], instance["name"]].mask(), np.uint8))
                assert coco.iou([score["mask"]], [truth], [0])[0, 0] == pytest.approx(
                    score["iou"][score["answer"]], abs=1e-6
                )
            assert "mask" not in instance["prompts"]["points:2"]


def test_a_picture_says_the_score_of_its_data_set_and_prompt(
    toy_bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    draw = evaluation.draw_sheet
    monkeypatch.setattr(evaluation, "draw_sheet", lambda *words: titles.append(words[-1]) or draw(*words))

    found = evaluate(data, Contender(toy_bundle), tmp_path / "out", Options(prompts="box,point"))

    assert len({row.answer.miou for row in found.rows}) > 1
    for title, row in zip(titles, found.rows, strict=True):
        assert title.startswith(f"{row.data_set}, {row.prompt}: mIoU {row.answer.miou:.3f};")


def test_engines_that_were_never_compared_are_said(
    toy_bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines: Any = SimpleNamespace(manifest=SimpleNamespace(version="10.3", verification=None))
    choice = evaluation.choose
    monkeypatch.setattr(evaluation, "choose", lambda *words: replace(choice(*words), engines=engines))
    heard = Heard()
    evaluate(data / "second", Contender(toy_bundle), tmp_path / "out", Options(prompts="box"), progress=heard)

    (line,) = heard.lines
    assert "not compared with the bundle yet" in line


def test_turned_images_are_said_once(toy_bundle: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "second", tmp_path / "second")
    exif = Image.Exif()
    exif[0x0112] = 3
    path = tmp_path / "second" / "images" / "0.png"
    Image.open(path).save(path, exif=exif)
    heard = Heard()
    evaluate(tmp_path / "second", Contender(toy_bundle), tmp_path / "out", Options(prompts="box"), progress=heard)

    (line,) = heard.lines
    assert line.startswith("second: 1 of 2 images are rotated by their EXIF orientation; their annotations must fit")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_data_set_may_have_a_name_that_is_no_text(toy_bundle: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"fr\xfcchte")
    shutil.copytree(data / "second", folder)
    out = tmp_path / "out"
    for _ in range(2):
        evaluate(folder, Contender(toy_bundle), out, Options(prompts="box"))

    page = (out / "results.md").read_text()
    assert "| fr\\udcfcchte " in page
    assert "](fr%FCchte_box.png)" in page
    assert read_results(out)["data_sets"][0]["name"] == folder.name


def test_a_limit_is_said(toy_bundle: Path, data: Path, tmp_path: Path) -> None:
    heard = Heard()
    found = evaluate(
        data / "first", Contender(toy_bundle), tmp_path / "out", Options(prompts="box", limit=3), progress=heard
    )

    assert (found.data_sets[0].images, found.data_sets[0].available) == (3, IMAGES)
    assert heard.lines == ["first: left out 1 of 4 images (limit)"]
    assert "left out: 1 of 4 images (limit)" in (tmp_path / "out" / "results.md").read_text()


def test_two_equal_bundles_differ_by_nothing(toy_bundle: Path, data: Path, tmp_path: Path) -> None:
    found = evaluate(data, Contender(toy_bundle), tmp_path / "out", Options(prompts="box,point"), Contender(toy_bundle))

    assert [(each.data_set, each.prompt) for each in found.differences] == [
        (s, p) for s in ("first", "second") for p in ("box", "points:1")
    ]
    for each in found.differences:
        assert each.miou == each.other_miou
        assert each.difference == 0
        assert each.interval is None  # of so few images


def test_ten_images_have_an_interval(toy_bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "ten", images=10, instances=1)
    found = evaluate(folder, Contender(toy_bundle), tmp_path / "out", Options(prompts="box"), Contender(other_bundle))

    (each,) = found.differences
    assert each.interval is not None
    assert each.interval[0] <= each.difference <= each.interval[1]


def test_two_bundles_are_compared_each_with_its_own_clicks(
    toy_bundle: Path, other_bundle: Path, data: Path, tmp_path: Path
) -> None:
    options = Options(prompts="box,points:2")
    found = evaluate(data / "first", Contender(toy_bundle), tmp_path / "both", options, Contender(other_bundle))
    alone = [
        evaluate(data / "first", Contender(bundle), tmp_path / name, options)
        for bundle, name in ((toy_bundle, "a"), (other_bundle, "b"))
    ]

    assert found.rows == alone[0].rows
    assert found.other_rows == alone[1].rows
    assert found.rows != found.other_rows
    for each, row, other in zip(found.differences, *(one.rows for one in alone), strict=True):
        assert each.difference == pytest.approx(other.answer.miou - row.answer.miou, abs=1e-12)
    results = read_results(tmp_path / "both")
    assert results["bootstrap"] == {"resamples": 10_000, "confidence": 0.95, "unit": "image"}
    assert "## Compared" in (tmp_path / "both" / "results.md").read_text()


def test_an_image_without_instances_is_not_encoded(
    toy_bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(data / "first", tmp_path / "first")
    Image.fromarray(np.zeros((60, 90), np.uint8)).save(tmp_path / "first" / "masks" / "0.png")
    encoded: list[Any] = []
    encode = Model.encode
    monkeypatch.setattr(Model, "encode", lambda *words: encoded.append(words) or encode(*words))
    found = evaluate(tmp_path / "first", Contender(toy_bundle), tmp_path / "out", Options(prompts="box"))

    assert len(encoded) == IMAGES - 1
    assert found.data_sets[0].images == IMAGES


def test_a_data_set_of_one_object_has_a_row_and_a_picture(toy_bundle: Path, tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "one", images=1, instances=1)
    (folder / "index.json").write_text(json.dumps({"images": [{"file": "0.png", "masks": ["0_a.png"]}]}))
    found = evaluate(folder, Contender(toy_bundle), tmp_path / "out", Options(prompts="box"), Contender(toy_bundle))

    assert found.rows[0].instances == 1
    assert found.rows[0].correlation is None
    assert found.differences[0].interval is None
    assert (tmp_path / "out" / "one_box.png").is_file()
    assert "| - " in (tmp_path / "out" / "results.md").read_text()


def test_outputs_where_they_would_do_harm_are_refused(own_bundle: Path, data: Path, tmp_path: Path) -> None:
    before = sorted(own_bundle.iterdir())

    for target in (own_bundle, own_bundle / "eval"):
        with pytest.raises(OutputError, match=r"is the bundle .* or lies in it"):
            evaluate(data, Contender(own_bundle), target)
    with pytest.raises(OutputError, match="is a data set"):
        evaluate(data, Contender(own_bundle), data / "first")
    for source, target in ((data, data), (data / "first", data), (data, data / "first" / "eval")):
        with pytest.raises(OutputError, match="would lie in the data set"):
            evaluate(source, Contender(own_bundle), target)
    with pytest.raises(OutputError, match="does not exist"):
        evaluate(data, Contender(own_bundle), tmp_path / "absent" / "out")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="a file of that name exists"):
        evaluate(data, Contender(own_bundle), tmp_path / "file")
    assert sorted(own_bundle.iterdir()) == before


@pytest.mark.parametrize("name", ["results.json", "results.md", ".samrt-lock", "b_box.png"])
def test_a_data_set_that_is_called_as_a_result_is_refused(toy_bundle: Path, tmp_path: Path, name: str) -> None:
    """Before its scores are computed for hours."""
    for each in ("b", name):
        write_data_set(tmp_path / "data" / each, 1)
    with pytest.raises(InputError, match="as a result has; rename it"):
        evaluate(tmp_path / "data", Contender(toy_bundle), tmp_path / "out", Options(prompts="box"))
    assert not (tmp_path / "out").exists()


def test_what_cannot_work_is_said_before_anything_is_written(toy_bundle: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    with pytest.raises(InputError, match="limit"):
        evaluate(data, Contender(toy_bundle), out, Options(limit=0))
    for given in ({"limit": 1.5}, {"limit": True}, {"prompts": 5}, {"restart": "no"}, {"overwrite": None}):
        with pytest.raises(InputError, match=next(iter(given))):
            Options(**given)
    for call in (
        lambda: evaluate(data, Contender(toy_bundle), out, 5),
        lambda: evaluate(data, toy_bundle, out),
        lambda: evaluate(5, Contender(toy_bundle), out),
        lambda: evaluate("x" * 300, Contender(toy_bundle), out),
    ):
        with pytest.raises(InputError):
            call()
    with pytest.raises(OutputError, match="too long"):
        evaluate(data, Contender(toy_bundle), tmp_path / ("x" * 300))
    with pytest.raises(InputError, match="points:4"):
        evaluate(data, Contender(toy_bundle), out, Options(prompts="points:4"))
    with pytest.raises(BundleError, match="no bundle at"):
        evaluate(data, Contender(toy_bundle), out, other=Contender(tmp_path / "absent"))
    with pytest.raises(samrt.BackendError, match="no backend 'gpu'"):
        evaluate(data, Contender(toy_bundle), out, other=Contender(toy_bundle, "gpu"))
    assert not out.exists()
