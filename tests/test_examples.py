"""Each script of examples/ runs as its docstring says, in an empty folder, and what it draws is there.

examples/demo.py is not among them: it makes an environment and is `make demo`.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PHOTO = cv2.imread(str(EXAMPLES / "images" / "coffee.jpg"))
COFFEE = np.s_[150:180, 260:320]  # in the cup
TABLE = np.s_[340:400, 500:600]


def test_many_boxes_tints_every_object(tmp_path: Path) -> None:
    said = run("many_boxes.py", tmp_path)
    assert said.count("predicted IoU") == 5
    changed = (cv2.imread(str(tmp_path / "many_boxes.png")) != PHOTO).any(axis=-1)
    # Inside the coffee, the handle and the spoon, on the rim and on the saucer.
    assert all(changed[y, x] for x, y in [(290, 165), (215, 270), (375, 290), (290, 30), (120, 250)])
    assert not changed[TABLE].any()


def test_meta_predictor_refines_the_cup(tmp_path: Path) -> None:
    said = run("meta_predictor.py", tmp_path)
    assert said.count("one point:") == 3
    assert_shows_the_cup(tmp_path / "meta_predictor.png")


def test_keep_embedding_predicts_the_same_from_the_file(tmp_path: Path) -> None:
    assert "encoded" in run("keep_embedding.py", tmp_path)
    first = cv2.imread(str(tmp_path / "keep_embedding.png"), cv2.IMREAD_GRAYSCALE)
    (tmp_path / "keep_embedding.png").unlink()
    assert "loaded" in run("keep_embedding.py", tmp_path)
    second = cv2.imread(str(tmp_path / "keep_embedding.png"), cv2.IMREAD_GRAYSCALE)
    assert first[30, 290]
    assert not first[TABLE].any()
    np.testing.assert_array_equal(first, second)


def test_scribble_shows_the_cup(tmp_path: Path) -> None:
    run("scribble.py", tmp_path)
    assert_shows_the_cup(tmp_path / "scribble.png")


def test_video_segments_each_frame(tmp_path: Path) -> None:
    film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (480, 400))
    for left in (60, 64, 68):
        film.write(np.ascontiguousarray(PHOTO[:, left : left + 480]))
    film.release()
    said = run("video.py", tmp_path, "film.avi", "--box", "110,18,352,212", "--frames", "2")
    assert "wrote video.avi: 2 frames" in said
    made = cv2.VideoCapture(str(tmp_path / "video.avi"))
    frames = [made.read()[1] for _ in range(2)]
    assert not made.read()[0]
    for frame in frames:
        blue, green, red = (int(value) for value in frame[30, 228])  # the rim: white, tinted green
        assert green > max(blue, red) + 50


def test_video_names_a_film_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        run("video.py", tmp_path, "absent.avi", "--box", "1,1,9,9")
    assert "cannot open absent.avi" in failure.value.stderr


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_uses_public_names_only(script: Path) -> None:
    tree = ast.parse(script.read_text(encoding="utf-8"))
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in modules if name and name.startswith(("samrt.", "samrt_export"))]


def assert_shows_the_cup(picture: Path) -> None:
    """The picture is the photograph's own where the mask is, and dark elsewhere."""
    shown = cv2.imread(str(picture))
    np.testing.assert_array_equal(shown[COFFEE], PHOTO[COFFEE])
    np.testing.assert_array_equal(shown[TABLE], PHOTO[TABLE] // 4)


def run(script: str, folder: Path, *arguments: str) -> str:
    # With this checkout's samrt, whatever is installed.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
