"""What commands write: not over files that are not samrt's, to stdout on request, and on broken streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_data import write_data_set
from leftovers import leave

from samrt.cli import main

Run = Callable[..., tuple[int, str, str]]
POINT = ("segment", "photo.png", "--point", "40,30")
BOTH = ("-o", "out.png", "--json", "out.json")
NO_SHELL = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")


def test_files_of_the_users_stay_and_samrts_own_are_replaced(run: Run, folder: Path, bundle: Path) -> None:
    words = (*POINT, "--bundle", bundle)
    for output, name in (((), "photo_masks.png"), (("-o", "a.png"), "a.png"), (("--json", "a.json"), "a.json")):
        Path(name).write_bytes(Path("photo.png").read_bytes())
        status, out, err = run(*words, *output)
        assert (status, out) == (1, "")
        assert err == (
            f"samrt: error: {folder / name} exists, and samrt did not write it; choose another name, or replace it "
            "with --overwrite\n"
        )
        assert Path(name).read_bytes() == Path("photo.png").read_bytes()
        assert run(*words, *output, "--overwrite")[0] == 0
        # The same command again, on its own output.
        assert run(*words, *output)[0] == 0


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (("-o", "taken.png"), "samrt did not write it"),
        (("-o", "link.png"), "samrt did not write it"),
        (("--json", "folder"), "not a regular file"),
        (("-o", "missing/out.png"), "does not exist"),
    ],
)
def test_where_nothing_can_be_written_nothing_is_read(
    run: Run, folder: Path, output: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("taken.png").write_bytes(b"a ground truth")
    Path("link.png").symlink_to("taken.png")
    Path("folder").mkdir()
    monkeypatch.setattr("samrt.images.read_image", lambda *_: pytest.fail("the image was read first"))
    status, _, err = run(*POINT, *output)
    assert status == 1
    assert message in err


def test_what_killed_commands_left_is_removed_and_told(run: Run, folder: Path, bundle: Path) -> None:
    left = [leave(folder / "out.png"), leave(folder / "out.json")]
    status, _, err = run(*POINT, *BOTH, "--bundle", bundle)
    assert status == 0
    assert {f"removed {work}" for work in left} <= {line.split(", ")[0] for line in err.splitlines()}
    assert not list(folder.glob(".*"))


def test_json_to_stdout_is_json_alone(run: Run, folder: Path, bundle: Path) -> None:
    assert run(*POINT, "--bundle", bundle, "--json", "out.json")[0] == 0
    # Not the file to which the shell may have sent it.
    assert run(*POINT, "--bundle", bundle, "--json", "/dev/stdout")[1].startswith("{")
    status, out, err = run(*POINT, "--bundle", bundle, "--json", "-", "-o", "out.png")
    assert status == 0
    assert json.loads(out) == json.loads(Path("out.json").read_text())
    assert "mask 1: score" in err
    assert err.endswith("wrote out.png\n")
    assert sorted(path.name for path in folder.iterdir()) == ["out.json", "out.png", "photo.png"]


@pytest.mark.parametrize(
    "words",
    [
        (*POINT, "-o", "-"),
        ("eval", "data", "-o", "/dev/stdout"),
        ("export", "sam.pth", "-o", "-"),
        ("build", "bundle", "--timing-cache", "-"),
    ],
)
def test_what_is_no_text_does_not_go_to_stdout(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(list(words))
    assert "not written to stdout; give it a name" in capsys.readouterr().err


def test_an_evaluation_leaves_files_that_are_not_its_own(run: Run, bundle: Path, folder: Path) -> None:
    write_data_set(folder / "shapes")
    words = ("eval", "shapes", "--prompts", "box", "--bundle", bundle, "-o", "out")
    Path("out/shapes").mkdir(parents=True)
    for name in ("results.json", "results.md", "shapes_box.png", "shapes/instances.jsonl"):
        Path("out", name).write_text("notes")
        status, _, err = run(*words, "--restart")
        assert status == 1
        assert name in err
        assert "--overwrite" in err
        assert Path("out", name).read_text() == "notes"
        Path("out", name).unlink()
    Path("out/results.md").write_text("notes")
    assert run(*words, "--overwrite")[0] == 0
    assert run(*words)[0] == 0
    assert run(*words, "--restart")[0] == 0


def _shell(line: str, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`line` in a shell, where "$@" is the command."""
    command = [sys.executable, "-m", "samrt", *map(str, words)]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["bash", "-c", line, "samrt", *command],
        capture_output=True,
        text=True,
        env={**buffered, **environment},
        check=False,
    )


@NO_SHELL
@pytest.mark.parametrize(
    ("streams", "status"),
    [
        (">&-", 0),
        ("2>&-", 0),
        ("<&- >&- 2>&-", 0),
        ("2>/dev/full", 0),
        (">/dev/full", 1),
        (">/dev/full 2>/dev/full", 1),
        ("2>&1 | true; exit ${PIPESTATUS[0]}", 141),
    ],
)
def test_what_was_asked_for_is_there_whatever_the_streams_are(
    folder: Path, bundle: Path, streams: str, status: int
) -> None:
    done = _shell(f'"$@" {streams}', *POINT, "--bundle", bundle, *BOTH)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert len(json.loads(Path("out.json").read_text())["masks"]) == 1
    assert Path("out.png").stat().st_size > 0


@NO_SHELL
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("info",), 0),
        (("--version",), 0),
        (("eval", "absent"), 1),
        (("build", "absent"), 1),
        (("segment", "absent.png", "--point", "1,2"), 1),
        (("export",), 2),
    ],
)
def test_every_command_keeps_its_status_on_closed_streams(folder: Path, words: tuple[str, ...], status: int) -> None:
    done = _shell('"$@" >&- 2>errors', *words)
    assert done.returncode == status
    assert "Traceback" not in Path("errors").read_text()
    assert _shell('"$@" >&- 2>&-', *words).returncode == status


@NO_SHELL
def test_json_to_a_closed_or_full_stdout_is_an_error(folder: Path, bundle: Path) -> None:
    words = (*POINT, "--bundle", bundle, "--json", "-")
    closed = _shell('"$@" >&-', *words)
    assert closed.returncode == 2
    assert "stdout is closed" in closed.stderr
    full = _shell('"$@" >/dev/full', *words)
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith("samrt: error:")


def test_an_empty_mask_is_warned_of(run: Run, folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samrt.decoding.threshold_masks", lambda low, *_: np.zeros((*low.shape[:-2], 60, 90), bool))
    words: Any
    np.save("logits.npy", np.zeros((1, 64, 64), np.float32))
    for words, said in (
        (("--box", "1,2,30,40", "--box", "5,6,70,50"), "mask 2, of box 5,6,70,50, is empty; try another point"),
        (("--point", "3,4", "--point", "5,6,0"), "mask 1, of points 3,4 5,6, is empty; try another point"),
        (("--mask", "logits.npy"), "mask 1, of mask logits.npy, is empty; add a --point"),
    ):
        status, _, err = run("segment", "photo.png", "--bundle", bundle, *words, "--json", "out.json")
        assert status == 0
        assert f"samrt: warning: {said}" in err
    assert "samrt: warning" not in run(*POINT, "--bundle", bundle, "--json", "-")[1]
