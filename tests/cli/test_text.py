"""What the commands print of names out of files: nothing that moves a terminal's cursor or begins a line of its own."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import write_data_set
from PIL import Image
from toy_bundle import rewrite_manifest, write_toy_bundle

from samrt.bundle.manifest import Source
from samrt.cli import main

Run = Callable[..., tuple[int, str, str]]
HOSTILE = "a\x1b[2J\r\x9b31m\u202e\u2028b"
ESCAPED = r"a\x1b[2J\r\x9b31m\u202e\u2028b"


def _is_clean(*texts: str) -> bool:
    return not any(
        unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl"} - {"\n"} for each in "".join(texts) if each != "\n"
    )


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A bundle whose every free text is hostile."""
    bundle = write_toy_bundle(tmp_path / "bundle")
    source = Source(f"{HOSTILE}\nmask 1: score 1.000", "ab" * 32, 24, 24)
    rewrite_manifest(bundle, family=HOSTILE, variant=f"{HOSTILE}\n", source=source, exporter={HOSTILE: f"\n{HOSTILE}"})
    return bundle


def test_info(run: Run, hostile: Path) -> None:
    status, out, err = run("info", hostile)
    _, plain, _ = run("info", write_toy_bundle(hostile.parent / "plain"))
    assert status == 0
    assert _is_clean(out, err)
    assert ESCAPED in out
    assert out.count("\n") == plain.count("\n")


def test_segment_with_a_hostile_bundle_and_image(run: Run, folder: Path, hostile: Path) -> None:
    name = f"{HOSTILE}\n.png"
    Path("photo.png").rename(name)
    status, out, err = run("segment", name, "--bundle", hostile, "--point", "3,4", "-o", f"{HOSTILE}.out.png")
    assert status == 0
    assert _is_clean(out, err)
    assert out.count("\n") == 2
    assert err.count("\n") == 1
    status, out, err = run("segment", f"{name}.absent", "--bundle", hostile, "--point", "3,4")
    assert (status, out) == (1, "")
    assert ESCAPED in err
    assert _is_clean(err)
    assert err.count("\n") == 1


def test_a_damaged_manifest_in_one_line(run: Run, tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "bundle")
    text = (bundle / "manifest.json").read_text()
    content = json.loads(text)
    content["files"][f"{HOSTILE}\n" * 10**4] = {"sha256": "ab" * 32, "bytes": 1}
    (bundle / "manifest.json").write_text(json.dumps(content))
    status, out, err = run("info", bundle)
    assert (status, out) == (1, "")
    assert _is_clean(err)
    assert len(err) < 5000
    assert err.count("\n") == 1


def test_wrong_usage_in_one_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("info", "bundle", f"{HOSTILE}\nsamrt: done")
    err = capsys.readouterr().err
    assert _is_clean(err)
    assert err.splitlines()[-1].startswith("samrt info: error: ") or err.splitlines()[-1].startswith("samrt: error: ")


def test_eval(run: Run, tmp_path: Path, hostile: Path) -> None:
    data = tmp_path / f"{HOSTILE}\ndata"
    (data / "images").mkdir(parents=True)
    (data / "masks").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    mask = np.zeros((60, 90), np.uint8)
    mask[10:40, 20:60] = 1
    name = f"{HOSTILE}\n.png"
    Image.fromarray(pixels).save(data / "images" / name)
    Image.fromarray(mask).save(data / "masks" / name)
    (data / "index.json").write_text(json.dumps({"images": [{"file": name, "masks": [name]}]}))
    status, out, err = run("eval", data, "--bundle", hostile, "-o", tmp_path / "out", "--prompts", "box")
    assert status == 0, err
    report = (tmp_path / "out" / "results.md").read_text()
    assert _is_clean(out, err, report)
    for text in (out, err, report):
        assert ESCAPED in text
    assert report.startswith(f"<!-- samrt-evaluation -->\n\n# Evaluation of {ESCAPED} {ESCAPED}\\n\n\n")


@pytest.mark.parametrize("command", ["segment", "eval"])
def test_what_c_libraries_print_of_a_picture_is_not_shown(
    tmp_path: Path, bundle: Path, pixels: np.ndarray, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content = BytesIO()
    Image.fromarray(pixels).save(content, "TIFF", compression="tiff_adobe_deflate")
    damaged = bytearray(content.getvalue())
    damaged[200:260] = b"\xff" * 60  # libtiff prints "ZIPDecode: ..." by itself
    data = write_data_set(tmp_path / "data", 1)
    photo = data / "images" / "0.png"
    photo.write_bytes(damaged)
    words = [photo, "--point", "3,4"] if command == "segment" else [data, "-o", tmp_path / "out"]
    assert main([command, *map(str, words), "--bundle", str(bundle)]) == 1
    err = capfd.readouterr().err
    assert err.splitlines()[-1].startswith(f"samrt: error: {photo} ")
    assert "ZIPDecode" not in err


def test_a_table_is_not_as_wide_as_the_longest_text(run: Run, tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "bundle")
    rewrite_manifest(bundle, family="x" * 10**5, exporter={"y" * 10**5: "1"})
    status, out, _ = run("info", bundle)
    assert status == 0
    assert max(map(len, out.splitlines())) < 400


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_names_that_no_file_can_have(run: Run, folder: Path, bundle: Path, name: str) -> None:
    point = ("--point", "3,4", "--bundle", bundle)
    for words in (
        (name, *point),
        ("photo.png", *point, "--json", name),
        ("photo.png", "--bundle", bundle, "--mask", name),
    ):
        status, out, err = run("segment", *words)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert err.startswith("samrt: error: ")
