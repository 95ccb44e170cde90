"""An evaluation that goes on after a stop, and folders that hold another one, with the toy bundle."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from evaluation_data import IMAGES, Heard, read_results
from leftovers import leave

from samrt import InputError, OutputError
from samrt.evaluation import Contender, Options, evaluate
from samrt.evaluation.datasets import survey
from samrt.evaluation.journal import _line, _read_line, read_records
from samrt.lock import LOCK_NAME
from samrt.model import Model
from samrt.progress import Silent

pytest_plugins = ("toy_fixtures",)


def test_an_interrupted_evaluation_goes_on_and_ends_the_same(
    toy_bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(prompts="box,points:2")
    evaluate(data, Contender(toy_bundle), tmp_path / "whole", options)
    encoded: list[Any] = []
    encode = Model.encode
    monkeypatch.setattr(Model, "encode", lambda *words: encoded.append(words) or encode(*words))
    with pytest.raises(KeyboardInterrupt):
        evaluate(data, Contender(toy_bundle), tmp_path / "parts", options, progress=Heard(interrupt_at=2))
    assert len(encoded) == 2
    assert not (tmp_path / "parts" / "results.json").exists()
    # As if the power had failed in the middle of a line.
    with (tmp_path / "parts" / "first" / "instances.jsonl").open("ab") as file:
        file.write(b'{"image": "2.pn')

    heard = Heard()
    evaluate(data, Contender(toy_bundle), tmp_path / "parts", options, progress=heard)

    assert len(encoded) == IMAGES + 2  # each image once in all
    assert next(step for step in heard.steps if step[0] == "images of first") == ("images of first", 2, IMAGES)
    for path in (tmp_path / "whole").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "parts" / path.relative_to(tmp_path / "whole")).read_bytes()

    evaluate(data, Contender(toy_bundle), tmp_path / "parts", options)
    assert len(encoded) == IMAGES + 2


def test_an_image_that_breaks_on_the_way_loses_nothing(toy_bundle: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "first", tmp_path / "first")
    victim = tmp_path / "first" / "images" / "2.png"
    whole = victim.read_bytes()

    class Breaking(Silent):
        def step(self, what: str, done: int, total: int) -> None:
            if (what, done) == ("images of first", 2):
                victim.write_bytes(whole[:200] + b"\xff" * (len(whole) - 200))

    options = Options(prompts="box")
    with pytest.raises(InputError, match=r"images/2\.png"):
        evaluate(tmp_path / "first", Contender(toy_bundle), tmp_path / "out", options, progress=Breaking())
    assert len(list(read_records(tmp_path / "out" / "first" / "instances.jsonl", ["0.png", "1.png"]))) == 2
    victim.write_bytes(whole)
    found = evaluate(tmp_path / "first", Contender(toy_bundle), tmp_path / "out", options)
    assert found.rows[0].instances == 15


def test_another_evaluation_in_the_same_folder_needs_restart(
    toy_bundle: Path, other_bundle: Path, data: Path, tmp_path: Path
) -> None:
    arguments = data / "second", Contender(toy_bundle), tmp_path / "out"
    evaluate(*arguments, Options(prompts="box"))
    before = (tmp_path / "out" / "results.json").read_text()

    with pytest.raises(InputError, match=r"differs in prompts; .*restart=True"):
        evaluate(*arguments, Options(prompts="point"))
    with pytest.raises(InputError, match="differs in data_set"):
        evaluate(*arguments, Options(prompts="box", limit=1))
    assert (tmp_path / "out" / "results.json").read_text() == before
    with pytest.raises(KeyboardInterrupt):
        evaluate(*arguments, Options(prompts="point", restart=True), progress=Heard(interrupt_at=1))
    assert not (tmp_path / "out" / "results.json").exists()  # they were of other scores than are kept now
    again = evaluate(*arguments, Options(prompts="point", restart=True))
    assert [row.prompt for row in again.rows] == ["points:1"]


def test_an_interrupted_restart_goes_on_without_it(toy_bundle: Path, data: Path, tmp_path: Path) -> None:
    words = data, Contender(toy_bundle), tmp_path / "out"
    evaluate(*words, Options(prompts="point"), Contender(toy_bundle))
    with pytest.raises(KeyboardInterrupt):
        evaluate(*words, Options(prompts="box", restart=True), Contender(toy_bundle), Heard(interrupt_at=2))

    heard = Heard()
    found = evaluate(*words, Options(prompts="box"), Contender(toy_bundle), heard)
    assert [row.prompt for row in found.other_rows] == ["box", "box"]
    assert ("images of first, first model", 2, IMAGES) in heard.steps


def test_a_line_that_was_lost_does_not_mix_up_a_comparison(
    toy_bundle: Path, other_bundle: Path, data: Path, tmp_path: Path
) -> None:
    words = data / "first", Contender(toy_bundle), tmp_path / "out", Options(prompts="box"), Contender(other_bundle)
    before = evaluate(*words)
    journal = tmp_path / "out" / "first" / "instances.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:2] + lines[3:]))

    assert evaluate(*words).differences == before.differences
    assert journal.read_bytes() != b"".join(lines)  # at the end now


def test_an_image_of_no_data_set_in_a_journal_is_dropped(toy_bundle: Path, data: Path, tmp_path: Path) -> None:
    words = data / "first", Contender(toy_bundle), tmp_path / "out", Options(prompts="box")
    evaluate(*words)
    journal = tmp_path / "out" / "first" / "instances.jsonl"
    journal.write_bytes(journal.read_bytes() + _line({"image": "stranger.png", "instances": []}))

    heard = Heard()
    assert evaluate(*words, progress=heard).rows
    assert any("1 lines were dropped that are damaged or not of this evaluation" in line for line in heard.lines)
    assert b"stranger" not in journal.read_bytes()


def test_forged_scores_do_not_get_into_results(toy_bundle: Path, data: Path, tmp_path: Path) -> None:
    words = data / "first", Contender(toy_bundle), tmp_path / "out", Options(prompts="box")
    before = evaluate(*words)
    journal = tmp_path / "out" / "first" / "instances.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    record = _read_line(lines[1]) or {}
    record["instances"][0]["prompts"]["box"]["iou"][0] = 7
    journal.write_bytes(b"".join([lines[0], _line(record), *lines[2:]]))

    heard = Heard()
    assert evaluate(*words, progress=heard).rows == before.rows
    assert any("1 lines were dropped" in line for line in heard.lines)


def test_results_of_other_data_sets_are_not_replaced(
    toy_bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, options = (Contender(toy_bundle), tmp_path / "out"), Options(prompts="box")
    evaluate(data / "first", *words, options)

    with pytest.raises(InputError, match=r"holds results of first, which would be lost; .*restart=True"):
        evaluate(data / "second", *words, options)
    # Nor those that come while the second looks for what it could replace.
    results = tmp_path / "out" / "results.json"
    first, module = results.rename(tmp_path / "first.json"), sys.modules[evaluate.__module__]
    with monkeypatch.context() as patch:
        patch.setattr(module, "survey", lambda *given: first.rename(results) and survey(*given))
        with pytest.raises(InputError, match="holds results of first"):
            evaluate(data / "second", *words, options)
    assert len(evaluate(data, *words, options).rows) == 2  # those of the first are among them
    found = evaluate(data / "second", *words, Options(prompts="box", restart=True))
    assert [each["name"] for each in read_results(tmp_path / "out")["data_sets"]] == ["second"]
    assert len(found.rows) == 1


@pytest.mark.parametrize("text", ["mine", "[]", '{"format": "of another"}', "[" * 100_000])
def test_results_of_something_else_are_never_replaced(toy_bundle: Path, data: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text(text)

    for restart in (False, True):
        with pytest.raises(OutputError, match=r"was not written by an evaluation, and would be lost"):
            evaluate(data, Contender(toy_bundle), tmp_path / "out", Options(restart=restart))
    assert (tmp_path / "out" / "results.json").read_text() == text


def test_what_killed_evaluations_left_is_removed_and_told(toy_bundle: Path, data: Path, tmp_path: Path) -> None:
    out, heard = tmp_path / "out", Heard()
    (out / "first").mkdir(parents=True)
    left = [leave(out / "first_points_9.png"), leave(out / "first" / "instances.jsonl")]
    (out / LOCK_NAME).write_text("process 1 on here")
    evaluate(data, Contender(toy_bundle), out, Options(prompts="box"), progress=heard)
    assert {f"removed {work}" for work in left} <= {line.split(", ")[0] for line in heard.lines}
    assert not list(out.rglob(".*"))


def test_two_evaluations_into_one_folder_do_not_mix(toy_bundle: Path, data: Path, tmp_path: Path) -> None:
    class Second(Silent):
        def step(self, what: str, done: int, total: int) -> None:
            if (what, done) == ("images of first", 1):
                with pytest.raises(OutputError, match="another evaluation is at work"):
                    evaluate(data, Contender(toy_bundle), tmp_path / "out", Options(prompts="box"))

    evaluate(data, Contender(toy_bundle), tmp_path / "out", Options(prompts="box"), progress=Second())
    assert not list((tmp_path / "out").glob(".*"))
