"""`samrt segment`: what it writes and prints, and what it refuses."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from toy_bundle import S as SIDE

import samrt
from samrt.cli import main, results

# pycocotools' arrays do not know numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = 60, 90  # of `pixels`
Run = Callable[..., tuple[int, str, str]]


def _masks(path: str = "out.json") -> list[dict[str, Any]]:
    return json.loads(Path(path).read_text())["masks"]


def _assert_same(entry: dict[str, Any], mask: np.ndarray, score: float) -> None:
    np.testing.assert_array_equal(coco.decode(entry["segmentation"]), mask)
    assert entry["predicted_iou"] == pytest.approx(float(score), abs=1e-6)
    assert entry["area"] == mask.sum()
    assert entry["bbox"] == list(coco.toBbox(entry["segmentation"]))


def test_segment_writes_the_picture_into_the_current_folder_and_says_so(
    run: Run, folder: Path, bundle: Path, pixels: np.ndarray
) -> None:
    status, out, err = run("segment", "photo.png", "--bundle", bundle, "--point", "40,30")

    assert status == 0
    assert sorted(path.name for path in folder.iterdir()) == ["photo.png", "photo_masks.png"]
    np.testing.assert_array_equal(np.asarray(Image.open("photo.png")), pixels)
    picture = np.asarray(Image.open("photo_masks.png"))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert (picture != pixels).any()
    assert re.fullmatch(
        r"mask 1: score 0\.\d{3}, area \d+ px \([\d.]+ %\), box \d+,\d+,\d+,\d+\nwrote photo_masks.png\n", out
    )
    assert re.search(r"load [\d.]+ s, encode [\d.]+ s, decode [\d.]+ s", err)


def test_segment_takes_points_and_one_box_as_one_prompt(
    run: Run, folder: Path, bundle: Path, pixels: np.ndarray
) -> None:
    status, out, _ = run(
        "segment", "photo.png", "--bundle", bundle, "--json", "out.json",
        "--point", "40.5,30", "--point", "10,50,0", "--box", "20,10,70,55",
    )  # fmt: skip
    with samrt.load(bundle) as model:
        expected = model.predict(
            model.encode(pixels),
            point_coords=[[40.5, 30], [10, 50]],
            point_labels=[1, 0],
            box=[20, 10, 70, 55],
            multimask_output=False,
        )

    assert status == 0
    assert not Path("photo_masks.png").exists()
    content = json.loads(Path("out.json").read_text())
    (entry,) = content["masks"]
    _assert_same(entry, expected.masks[0], expected.iou_predictions[0])
    assert entry["prompt"] == {
        "point_coords": [[40.5, 30.0], [10.0, 50.0]],
        "point_labels": [1, 0],
        "box": [20.0, 10.0, 70.0, 55.0],
    }
    assert content["image"] == "photo.png"
    assert content["size"] == [HEIGHT, WIDTH]
    assert content["bundle"]["variant"] == "toy"
    x, y, width, height = entry["bbox"]
    assert f"box {x},{y},{x + width},{y + height}\n" in out


def test_segment_takes_each_of_several_boxes_as_an_object(
    run: Run, folder: Path, bundle: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[np.ndarray] = []
    monkeypatch.setattr(results, "draw_overlay", lambda image, masks, *_: drawn.append(np.stack(masks)) or image)
    boxes = [[5, 5, 30, 40], [50, 10, 85, 55]]
    words = [word for box in boxes for word in ("--box", ",".join(map(str, box)))]
    status, out, _ = run(
        "segment", "photo.png", "--bundle", bundle, *words, "--json", "out.json", "-o", "out.png", "--multimask"
    )
    with samrt.load(bundle) as model:
        expected = model.predict(model.encode(pixels), box=boxes, multimask_output=True)

    assert status == 0
    entries = _masks()
    assert len(entries) == 6
    for index, entry in enumerate(entries):
        prompt, output = divmod(index, 3)
        _assert_same(entry, expected.masks[prompt, output], expected.iou_predictions[prompt, output])
        assert entry["prompt"] == {"box": boxes[prompt]}
    assert [line.split(":")[0] for line in out.splitlines()[:6]] == [f"mask {number}" for number in range(1, 7)]
    # A panel per output, with that output of both boxes in it; and two gutters.
    np.testing.assert_array_equal(np.stack(drawn, axis=1), expected.masks)
    width, height = Image.open("out.png").size
    assert height == HEIGHT
    assert width > 3 * WIDTH


def test_segment_of_one_prompt_with_multimask_differs_from_without(run: Run, folder: Path, bundle: Path) -> None:
    run("segment", "photo.png", "--bundle", bundle, "--point", "40,30", "--json", "one.json")
    run("segment", "photo.png", "--bundle", bundle, "--point", "40,30", "--json", "three.json", "--multimask")
    one, three = _masks("one.json"), _masks("three.json")
    assert (len(one), len(three)) == (1, 3)
    assert len({entry["segmentation"]["counts"] for entry in one + three}) == 4


def _painted(mode: str) -> Image.Image:
    strokes = np.zeros((HEIGHT, WIDTH), np.uint8)
    strokes[25:30, 20:60] = 1
    if mode == "RGBA":
        # White everywhere; only the strokes are opaque.
        return Image.fromarray(np.dstack([np.full((HEIGHT, WIDTH, 3), 255, np.uint8), strokes * 255]))
    if mode == "RGB":
        return Image.fromarray(np.dstack([strokes, strokes * 0, strokes * 0]))
    if mode == "P":
        # The colours count, not their numbers: here number 0 is the paint.
        picture = Image.fromarray(1 - strokes, "P")
        picture.putpalette([255, 0, 0, 0, 0, 0])
        return picture
    if mode == "P, transparent":
        picture = Image.fromarray(strokes + 1, "P")
        picture.putpalette([255] * 9)
        picture.info["transparency"] = 1
        return picture
    return Image.fromarray(strokes)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "P, transparent"])
def test_segment_takes_a_painted_mask_as_a_scribble(
    run: Run, folder: Path, bundle: Path, pixels: np.ndarray, mode: str
) -> None:
    _painted(mode).save("painted.png")
    status, _, _ = run(
        "segment", "photo.png", "--bundle", bundle, "--mask", "painted.png", "--json", "out.json", "-o", "out.png"
    )
    with samrt.load(bundle) as model:
        scribble = samrt.Scribble(np.asarray(_painted("L")))
        expected = model.predict(model.encode(pixels), scribble=scribble, multimask_output=False)

    assert status == 0
    (entry,) = _masks()
    _assert_same(entry, expected.masks[0], expected.iou_predictions[0])
    assert entry["prompt"] == {"mask": "painted.png"}


def test_segment_takes_npy_logits_as_mask_input(run: Run, folder: Path, bundle: Path, pixels: np.ndarray) -> None:
    logits = np.random.default_rng(1).normal(0, 8, (1, SIDE, SIDE)).astype(np.float32)
    np.save("logits.npy", logits)
    status, _, _ = run(
        "segment", "photo.png", "--bundle", bundle, "--mask", "logits.npy", "--point", "40,30", "--json", "out.json"
    )
    with samrt.load(bundle) as model:
        expected = model.predict(model.encode(pixels), [[40, 30]], [1], mask_input=logits, multimask_output=False)

    assert status == 0
    (entry,) = _masks()
    _assert_same(entry, expected.masks[0], expected.iou_predictions[0])


def test_segment_refuses_masks_it_cannot_use(run: Run, folder: Path, bundle: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (folder / "ran",)

    Image.linear_gradient("L").resize((WIDTH, HEIGHT)).save("photo.jpg")
    _painted("L").resize((10, 10)).save("small.png")
    Image.new("L", (WIDTH, HEIGHT)).save("empty.png")
    _painted("L").save("whole.png")
    Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:60])
    np.save("shape.npy", np.zeros((3, 3), np.float32))
    np.savez("several", a=np.zeros(1), b=np.zeros(2))
    Path("several.npz").rename("several.npy")
    np.save("object.npy", np.array([Hostile()], object), allow_pickle=True)
    Path("pickle.npy").write_bytes(pickle.dumps(Hostile()))
    header = Path("shape.npy").read_bytes()
    Path("huge.npy").write_bytes(header.replace(b"(3, 3)", b"(9999999999999,)"))
    Path("odd.npy").write_bytes(header.replace(b"(3, 3)", b"(3, (3"))

    for name, message in {
        "photo.jpg": "it is not clear what is painted in photo.jpg",
        "small.png": "10",
        "empty.png": "empty",
        "cut.png": "cut.png is truncated",
        "absent.png": "no image file at absent.png",
        "shape.npy": "mask_input must have the shape",
        "several.npy": "several arrays",
        "object.npy": "cannot read mask logits",
        "pickle.npy": "cannot read mask logits",
        "absent.npy": "cannot read mask logits",
        "huge.npy": "cannot read mask logits",
        "odd.npy": "cannot read mask logits",
    }.items():
        status, out, err = run("segment", "photo.png", "--bundle", bundle, "--mask", name, "--json", "out.json")
        assert (status, out) == (1, ""), name
        assert message in err, name
        assert err.count("samrt: error:") == 1
        assert "allow_pickle" not in err
    assert not Path("out.json").exists()
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "at least one of --point, --box and --mask"),
        (("--box", "1,2,3,4", "--box", "5,6,7,8", "--point", "1,2"), "call samrt segment once per object"),
        (("--box", "1,2,3,4", "--box", "5,6,7,8", "--mask", "m.png"), "call samrt segment once per object"),
        (("--point", "1"), "'1' is not X,Y"),
        (("--point", "1,2,3,4"), "is not X,Y"),
        (("--point", "1,2,2"), "label 1 (object) or 0"),
        (("--point", "one,2"), "not a number"),
        (("--box", "1,2,3"), "is not X0,Y0,X1,Y1"),
        (("--box", "1,2,3,four"), "not a number"),
        (("--point", "1,2", "-o", "out.jpg"), "name it out.png"),
        (("--point", "1,2", "-o", "photo.png"), "would be written over"),
        (("--point", "1,2", "--json", "../{folder}/photo.png"), "would be written over"),
        (("--mask", "m.npy", "--json", "m.npy"), "would be written over"),
        (("--point", "1,2", "--json", "{bundle}"), "is the bundle or lies in it"),
        (("--point", "1,2", "--json", "{bundle}/manifest.json"), "is the bundle or lies in it"),
        (("--point", "1,2", "-o", "same.png", "--json", "same.png"), "choose two names"),
        (("--point", "1,2", "--frobnicate"), "--frobnicate"),
    ],
)
def test_segment_refuses_wrong_usage_before_any_work(
    folder: Path, bundle: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    before = Path("photo.png").read_bytes()
    words = tuple(word.format(folder=folder.name, bundle=bundle) for word in words)
    with pytest.raises(SystemExit) as stopped:
        main(["segment", "photo.png", "--bundle", str(bundle), *words])

    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["photo.png"]
    assert Path("photo.png").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("photo.png", "--point", "-2,5"), "the point (-2, 5) lies outside"),
        (("photo.png", "--point", "nan,5"), "NaN"),
        (("photo.png", "--box", "50,5,10,20"), "inverted"),
        (("photo.png", "--point", "1,2", "--backend", "abacus"), "no backend 'abacus'"),
        (("absent.png", "--point", "1,2"), "no image file at absent.png"),
        (("photo.png", "--point", "1,2", "-o", "no/such/out.png"), "the folder no/such does not exist"),
        (("photo.png", "--point", "1,2", "--json", "no/such/out.json"), "the folder no/such does not exist"),
        (("photo.png", "--point", "1,2", "--bundle", "absent"), "no bundle at absent"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_leaves_nothing(
    run: Run, folder: Path, bundle: Path, words: tuple[str, ...], message: str
) -> None:
    given = () if "--bundle" in words else ("--bundle", bundle)
    status, out, err = run("segment", *given, *words)

    assert status == 1
    assert out == ""
    error = err.splitlines()[-1]
    assert error.startswith("samrt: error: ")
    assert message in error
    assert "Traceback" not in err
    assert [path.name for path in folder.iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    "words",
    [("--point", "-2,5"), ("--box", "50,5,10,20"), ("--point", "1,2", "-o", "no/such/out.png")],
    ids=["point", "box", "folder"],
)
def test_what_cannot_succeed_ends_before_the_image_is_encoded(
    run: Run, folder: Path, bundle: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object) -> None:
        pytest.fail("the image was encoded first")

    monkeypatch.setattr("samrt.model.Model.encode", encode)
    assert run("segment", "photo.png", "--bundle", bundle, *words)[0] == 1


def test_a_region_is_seen_alone(run: Run, folder: Path, bundle: Path, pixels: np.ndarray) -> None:
    words = "segment", "photo.png", "--bundle", bundle, "--json", "out.json"
    status, _, _ = run(*words, "--region", "20,10,80,50", "--point", "40,30")
    with samrt.load(bundle) as model:
        embedding = model.encode(pixels, region=(20, 10, 80, 50))
        expected = model.predict(embedding, [[40, 30]], [1], multimask_output=False)

    assert status == 0
    (mask,) = _masks()
    _assert_same(mask, expected.masks[0], expected.iou_predictions[0])
    assert json.loads(Path("out.json").read_text())["region"] == [20, 10, 80, 50]


@pytest.mark.parametrize("region", ["20,10,80", "2.5,1,8,8", "a"])
def test_a_region_is_four_whole_numbers(
    run: Run, folder: Path, bundle: Path, region: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("segment", "photo.png", "--bundle", bundle, "--point", "40,30", "--region", region)
    assert "not X0,Y0,X1,Y1 in whole numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--region", "20,10,95,50"), "not a part of the image of 90x60"),
        (("--region", "50,10,80,50"), r"point \(40, 30\) lies outside the region 50,10,80,50"),
        (("--precision", "fp16"), "has no form of precision fp16, it holds fp32-dense"),
        (("--precision", "fp7"), "there is no precision 'fp7'"),
        (("--threads", "0"), "threads must be a whole number from 1 to .* not 0"),
    ],
)
def test_regions_precisions_and_threads_that_cannot_be(
    run: Run, folder: Path, bundle: Path, words: tuple[str, ...], message: str
) -> None:
    status, _, err = run("segment", "photo.png", "--bundle", bundle, "--point", "40,30", *words)
    assert status == 1
    assert re.search(message, err)
    assert [path.name for path in folder.iterdir()] == ["photo.png"]
