"""The picture of `samrt segment` from stdin, and masks that are turned as the picture is."""

from __future__ import annotations

import io
import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samrt.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


def counts(path: str) -> list[str]:
    return [mask["segmentation"]["counts"] for mask in json.loads(Path(path).read_text())["masks"]]


def test_a_picture_from_stdin(run: Run, folder: Path, bundle: Path, stdin: Any) -> None:
    prompt = "--bundle", bundle, "--point", "40,30"
    stdin(Path("photo.png").read_bytes())
    assert run("segment", "-", *prompt, "--json", "stdin.json")[0] == 0
    run("segment", "photo.png", *prompt, "--json", "file.json")
    assert counts("stdin.json") == counts("file.json")
    stdin(Path("photo.png").read_bytes())
    status, out, _ = run("segment", "-", *prompt)
    assert (status, out.splitlines()[-1]) == (0, "wrote stdin_masks.png")


@pytest.mark.parametrize(("content", "message"), [(b"garbage", "is not an image in a format"), (b"", "is empty")])
def test_stdin_that_is_no_picture(
    run: Run, folder: Path, bundle: Path, stdin: Any, content: bytes, message: str
) -> None:
    stdin(content)
    status, _, err = run("segment", "-", "--bundle", bundle, "--point", "40,30")
    assert status == 1
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("closed", [True, False])
def test_stdin_that_is_closed_or_a_terminal(
    run: Run, folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, closed: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", None if closed else Terminal())
    with pytest.raises(SystemExit):
        run("segment", "-", "--bundle", bundle, "--point", "40,30")
    assert "nothing is piped there; a file of that name is ./-" in capsys.readouterr().err


def test_picture_and_mask_are_turned_alike(run: Run, folder: Path, bundle: Path, pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = np.zeros(pixels.shape[:2], np.uint8)
    mask[25:30, 20:60] = 255
    for name, turned in (("stored", False), ("seen", True)):
        for file, array in ((f"{name}_photo.png", pixels), (f"{name}_mask.png", mask)):
            image = Image.fromarray(np.ascontiguousarray(np.rot90(array, -1) if turned else array))
            image.save(file, exif=None if turned else exif)
        words = f"{name}_photo.png", "--mask", f"{name}_mask.png", "--json", f"{name}.json"
        assert run("segment", *words, "--bundle", bundle)[0] == 0
    assert counts("stored.json") == counts("seen.json")


@pytest.mark.parametrize("option", ["image", "mask"])
def test_nothing_but_the_error_is_on_stderr(
    folder: Path, bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    Image.effect_noise((90, 70), 90).convert("1").save("whole.tif", compression="group4")
    Path("cut.tif").write_bytes(Path("whole.tif").read_bytes()[:-13])
    given = ("cut.tif", "--point", "40,30") if option == "image" else ("photo.png", "--mask", "cut.tif")
    with warnings.catch_warnings():
        warnings.resetwarnings()
        monkeypatch.setattr("sys.warnoptions", [])
        assert main(["segment", *given, "--bundle", str(bundle)]) == 1
    assert re.fullmatch(r"samrt: error: cut.tif .*\n", capfd.readouterr().err)
    os.write(2, b"later")
    assert capfd.readouterr().err == "later"
