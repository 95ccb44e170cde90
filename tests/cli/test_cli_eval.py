"""`samrt eval`: what it prints and writes, exit codes and messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluation_data import write_data_set

from samrt.backends import onnxruntime
from samrt.cli import main
from samrt.model import Model

pytest_plugins = ("toy_fixtures",)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`samrt eval` in a folder of its own, with a data set of three images in it."""
    write_data_set(tmp_path / "shapes")
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        status = main(["eval", *map(str, words)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_eval_prints_a_table_and_says_where_the_rest_is(run: Run, toy_bundle: Path) -> None:
    status, out, err = run("shapes", "--bundle", toy_bundle, "--prompts", "box,point")

    assert status == 0
    lines = out.splitlines()
    assert [line.split("|")[2].strip() for line in lines[:4]] == ["prompt", "-------", "box", "1 point"]
    assert lines[-1] == "wrote eval_bundle_shapes"
    assert "images of shapes: 3 of 3, " in err
    assert json.loads(Path("eval_bundle_shapes/results.json").read_text())["prompts"] == ["box", "points:1"]
    assert lines[:4] == [
        line for line in Path("eval_bundle_shapes/results.md").read_text().splitlines() if line[:1] == "|"
    ]

    status, again, err = run("shapes", "--bundle", toy_bundle, "--prompts", "box,point")
    assert (status, again) == (0, out)
    assert "images of shapes: 3 of 3 were done before" in err


def test_eval_compares_with_a_bundle_or_a_backend(run: Run, toy_bundle: Path) -> None:
    words = "shapes", "--bundle", toy_bundle, "--prompts", "box", "--limit", 2
    status, out, _ = run(*words, "--compare", toy_bundle, "-o", "a")
    assert status == 0
    assert f"other: {toy_bundle}: toy toy at 64, onnxruntime, fp32-dense" in out
    assert "| +0.0000    | -" in out

    status, out, _ = run(*words, "--compare-backend", "onnxruntime", "-o", "b")
    assert status == 0
    assert "| +0.0000    |" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("absent",), "there is no data set at absent"),
        (("shapes", "--prompts", "circle"), "'circle' is no kind of prompt"),
        (("shapes", "--limit", "0"), "the limit must be at least 1 image"),
        (("shapes", "--threads", "0"), "not 0; leave --threads out to take one per usable core"),
        (("shapes", "--backend", "gpu"), "there is no backend 'gpu'"),
        (("shapes", "--compare", "absent"), "there is no bundle at absent"),
        (("shapes", "--masks", "."), "is not a COCO JSON file"),
        (("shapes", "--masks", "."), "; leave --images and --masks out\n"),
        (("shapes", "-o", "absent/out"), "does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line(run: Run, toy_bundle: Path, words: tuple[str, ...], message: str) -> None:
    status, out, err = run(*words, "--bundle", toy_bundle)

    assert status == 1
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("samrt: error: ")
    assert message in err


def test_threads_are_those_of_onnx_runtime(run: Run, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int | None] = []
    options = onnxruntime._session_options
    monkeypatch.setattr(onnxruntime, "_session_options", lambda threads: taken.append(threads) or options(threads))
    status, _, _ = run("shapes", "--bundle", toy_bundle, "--prompts", "box", "--limit", 1, "--threads", 1)
    assert (status, taken) == (0, [1, 1])


def test_an_interruption_says_where_it_goes_on(run: Run, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Model.encode
    calls: list[int] = []

    def interrupted(*words: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "encode", interrupted)
    words = "shapes", "--bundle", toy_bundle, "--prompts", "box"
    status, out, err = run(*words)
    assert (status, out) == (130, "")
    assert "kept in eval_bundle_shapes; the same command goes on from there" in err

    status, _, err = run(*words)
    assert status == 0
    assert "images of shapes: 1 of 3 were done before" in err

    calls.clear()
    status, _, err = run(*words, "--restart")
    assert status == 130
    assert "kept in eval_bundle_shapes; the same command without --restart goes on from there" in err


def test_nothing_is_said_to_be_kept_before_the_model_has_run(run: Run, toy_bundle: Path) -> None:
    words = "shapes", "--bundle", toy_bundle, "--prompts"
    assert run(*words, "box")[0] == 0
    status, _, err = run(*words, "point")

    assert status == 1
    assert "differs in prompts" in err
    assert "are kept in" not in err
    Path("shapes/masks/2_b.png").write_bytes(b"no picture")
    status, _, err = run(*words, "box", "-o", "other")
    assert status == 1
    assert "are kept in" not in err


def test_the_folder_is_named_after_the_bundle_and_the_data_set(run: Run, toy_bundle: Path) -> None:
    write_data_set(Path("sets.v1/a"), images=1)

    assert run("sets.v1", "--bundle", toy_bundle, "--prompts", "box")[1].endswith("wrote eval_bundle_sets.v1\n")


def test_the_table_begins_on_a_line_of_its_own(run: Run, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, _, err = run("shapes", "--bundle", toy_bundle, "--prompts", "box")

    assert status == 0
    assert "\r" in err
    assert err.endswith("\n")


def test_the_help_of_eval_loads_nothing_heavy() -> None:
    code = "import sys, samrt.cli; samrt.cli.main(['eval', '--help'])"
    check = "import atexit, sys; atexit.register(lambda: print('numpy' in sys.modules, file=sys.stderr)); " + code
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, env=os.environ)

    assert "--compare-backend" in done.stdout
    assert done.stderr == "False\n"
