"""The command line: what each command writes and prints, exit codes, and messages."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from toy_bundle import S as SIDE
from toy_bundle import rewrite_manifest, write_toy_bundle

import samrt
from samrt import overlay
from samrt.bundle.folder import open_bundle
from samrt.cli import main

# pycocotools' arrays do not know numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = 60, 90
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_bundle(tmp_path_factory.mktemp("cli") / "bundle")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photo.png in it."""
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def _masks(path: str = "out.json") -> list[dict[str, Any]]:
    return json.loads(Path(path).read_text())["masks"]


def _assert_same(entry: dict[str, Any], mask: np.ndarray, score: float) -> None:
    np.testing.assert_array_equal(coco.decode(entry["segmentation"]), mask)
    assert entry["predicted_iou"] == pytest.approx(float(score), abs=1e-6)
    assert entry["area"] == mask.sum()
    assert entry["bbox"] == list(coco.toBbox(entry["segmentation"]))


# segment


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
    monkeypatch.setattr(overlay, "draw_overlay", lambda image, masks, *_: drawn.append(masks) or image)
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

    _painted("L").save("jpeg.png", format="JPEG")
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
        "jpeg.png": "is a JPEG",
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
        (("photo.png", "--point=-1,5"), "the point (-1, 5) lies outside"),
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
    status, out, err = run("segment", "--bundle", bundle, *words)

    assert status == 1
    assert out == ""
    error = err.splitlines()[-1]
    assert error.startswith("samrt: error: ")
    assert message in error
    assert "Traceback" not in err
    assert [path.name for path in folder.iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    "words",
    [("--point=-1,5",), ("--box", "50,5,10,20"), ("--point", "1,2", "-o", "no/such/out.png")],
    ids=["point", "box", "folder"],
)
def test_what_cannot_succeed_ends_before_the_image_is_encoded(
    run: Run, folder: Path, bundle: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object) -> None:
        pytest.fail("the image was encoded first")

    monkeypatch.setattr("samrt.model.Model.encode", encode)
    assert run("segment", "photo.png", "--bundle", bundle, *words)[0] == 1


def test_debug_shows_the_traceback(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMRT_DEBUG", "1")
    status, _, err = run("info", "absent")
    assert status == 1
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("samrt: error: there is no bundle")


def test_ctrl_c_is_130(run: Run, folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(samrt.Model, "encode", interrupted)
    status, out, err = run("segment", "photo.png", "--bundle", bundle, "--point", "1,2")
    assert (status, out, err) == (130, "", "samrt: interrupted\n")


# info


def test_info_prints_what_the_bundle_is(run: Run, tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "bundle")
    verification = {
        "seed": 0,
        "tolerance": {"embedding_relative_l2": 1e-5, "mask_iou": 0.9999},
        "figures": {
            "embedding_relative_l2": 4.25e-6,
            "prompts": {"box": {"mask_iou": 1.0, "logits_relative_l2": 3e-6}},
        },
    }
    (form,) = open_bundle(bundle).manifest.forms
    rewrite_manifest(
        bundle, exporter={"samrt": "1.2.3", "opset": 18}, forms=(replace(form, verification=verification),)
    )
    status, out, _ = run("info", bundle)
    lines = [" ".join(line.split()) for line in out.splitlines()]

    assert status == 0
    assert "model toy toy, 24 parameters" in lines
    assert "image 64 x 64, RGB mean 123.675 116.28 103.53, deviation 58.395 57.12 57.375" in lines
    assert "checkpoint toy.pth, 24 B" in lines
    assert "exported by samrt 1.2.3, opset 18" in lines
    assert "in image float32 [batch, 3, 64, 64]" in lines
    assert "out iou_predictions float32 [prompts, 4]" in lines
    assert lines[lines.index("fp32-dense: compared with torch at export") + 1 :] == [
        "seed 0",
        "embedding relative l2 4.25e-06 tolerance 1e-05",
        "prompts: box: mask iou 1 tolerance 0.9999",
        "prompts: box: logits relative l2 3e-06",
    ]
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        assert any(line.startswith(name) and line.endswith(entry["sha256"]) for line in lines)


def test_info_json_is_the_manifest_and_the_result_of_the_check(run: Run, bundle: Path) -> None:
    status, out, _ = run("info", bundle, "--json")
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert status == 0
    assert json.loads(out) == {"path": str(bundle), "verified": True, **manifest, "engines": []}


def test_info_refuses_a_bundle_that_was_changed(run: Run, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "changed")
    weights = tmp_path / "changed" / "encoder.weights"
    content = bytearray(weights.read_bytes())
    content[7] ^= 1
    weights.write_bytes(content)
    for words in (("info", tmp_path / "changed"), ("info", tmp_path / "changed", "--json")):
        status, out, err = run(*words)
        assert (status, out) == (1, "")
        assert "encoder.weights" in err


# doctor


def test_doctor_prints_every_finding_and_that_the_runtime_works(run: Run) -> None:
    status, out, _ = run("doctor")
    assert status == 0
    assert re.search(rf"^ok +numpy +{re.escape(np.__version__)}$", out, re.MULTILINE)
    assert out.endswith("The runtime works.\n")


def test_doctor_fails_with_the_remedy_where_the_runtime_is_broken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, out, _ = run("doctor")
    assert status == 1
    assert re.search(r"^broken +ONNX Runtime .*\n.*pip install.* onnxruntime$", out, re.MULTILINE)

    status, out, _ = run("doctor", "--json")
    assert status == 1
    report = json.loads(out)
    assert report["runtime_works"] is False
    assert [finding["name"] for finding in report["findings"] if finding["status"] == "broken"] == ["ONNX Runtime"]


# export


def test_export_hands_the_options_on_and_shows_progress(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def export(checkpoint: Path, output: Path, options: object, progress: Callable[[str], None]) -> None:
        calls.append((checkpoint, output, options))
        progress("tracing")

    pipeline = ModuleType("samrt_export.pipeline")
    pipeline.__dict__.update(ExportOptions=SimpleNamespace, export=export)
    monkeypatch.setitem(sys.modules, "samrt_export.pipeline", pipeline)

    status, out, err = run("export", "sam.pth", "-o", "b")
    assert (status, out) == (0, "")
    assert re.fullmatch(r"\[ +[\d.]+ s\] tracing\n", err)
    defaults = SimpleNamespace(model=None, image_size=None, lowering=("auto",), precisions=("fp32",))
    assert calls.pop() == (Path("sam.pth"), Path("b"), defaults)

    run(
        "export", "sam.pth", "-o", "b", "--model", "vit_b", "--image-size", "512",
        "--lowering", "auto,plugin", "--precision", "fp32,fp16",
    )  # fmt: skip
    chosen = SimpleNamespace(model="vit_b", image_size=512, lowering=("auto", "plugin"), precisions=("fp32", "fp16"))
    assert calls.pop()[2] == chosen


def test_export_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "onnxscript" else find_spec(name, *rest)
    )
    status, out, err = run("export", "sam.pth", "-o", "b")
    assert (status, out) == (1, "")
    assert err == (
        "samrt: error: export needs onnxscript, not installed here; "
        "run in a checkout of samrt: pip install '.[export]'\n"
    )


@pytest.mark.parametrize("words", [(), ("--lowering", "auto,x"), ("--image-size", "big")])
def test_export_refuses_wrong_usage(words: tuple[str, ...]) -> None:
    output = ("-o", "b") if words else ()
    with pytest.raises(SystemExit) as stopped:
        main(["export", "sam.pth", *output, *words])
    assert stopped.value.code == 2


# the whole


@pytest.mark.parametrize("command", ["segment", "info", "doctor", "export"])
def test_help_of_each_command_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert f"  samrt {command} " in text
    assert max(map(len, text.splitlines())) <= 120


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"samrt {samrt.__version__}\n"


@pytest.mark.parametrize("words", [[], ["frobnicate"]])
def test_no_or_an_unknown_command_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_help_imports_neither_the_engine_nor_the_other_commands() -> None:
    code = (
        "import sys; from samrt.cli import main\n"
        "try: main(['segment', '--help'])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "samrt.cli.segment" in loaded
    assert not loaded & {"numpy", "cv2", "PIL", "onnxruntime", "torch", "samrt.cli.info", "samrt.cli.export"}


@pytest.mark.skipif(sys.platform == "win32", reason="pipes close differently there")
@pytest.mark.parametrize("words", [["--help"], ["doctor"]])
def test_a_closed_pipe_is_quiet(words: list[str]) -> None:
    # Buffered, as in a shell: argparse would hide the error of a write that fails at once.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "samrt", *words]
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_file_name_need_not_be_text(folder: Path, bundle: Path) -> None:
    name = b"caf\xe9.png"
    os.rename(b"photo.png", name)
    words = ["segment", name, "--bundle", bundle, "--point", "9,9", "-o", b"\xe9.png", "--json", b"\xe9.json"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([sys.executable, "-m", "samrt", *words], capture_output=True, env=environment, check=True)
    assert b"wrote \\udce9.png\nwrote \\udce9.json\n" in done.stdout
    assert json.loads(Path(os.fsdecode(b"\xe9.json")).read_text())["image"] == os.fsdecode(name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_under_stdout_is_one_line() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "samrt", "doctor"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"samrt: error: .*No space left on device\n", done.stderr)
