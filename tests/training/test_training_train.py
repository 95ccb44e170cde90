"""`training/train.py`: a resumed run is the run that was not stopped, and what it writes is a checkpoint."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from seeded import SMALL_CONV_VIT, released_trunk
from training_fixtures import TINY, write_data_set, write_decoder

from samrt_export.checkpoint import read_checkpoint
from samrt_export.families import load_model
from training import log, rehearsal, schedule, train
from training.efficientnet import trunk_state
from training.model import PromptableModel
from training.pack import pack
from training.recipes import RECIPES, Stage


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for one another cost small steps three times their time where other work shares the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def tiny_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "tiny", TINY)
    monkeypatch.setattr(log, "_LOGGED_EVERY", 1)
    monkeypatch.setattr(schedule, "_KEPT_EVERY", 1)


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """The arguments that name data and decoder."""
    pack(write_data_set(tmp_path / "data"), tmp_path / "packed.npz")
    decoder = write_decoder(tmp_path / "decoder.pth")
    return ["--data", str(tmp_path / "packed.npz"), "--decoder", str(decoder), "--device", "cpu", "--eager"]


def _train(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["train", "tiny", *words])
    return train.main()


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert _train(monkeypatch, *inputs, "-o", str(whole)) == 0
    # Every call ends after the one step that it is given time for.
    statuses = [_train(monkeypatch, *inputs, "-o", str(parts), "--stop-after", "1e-9") for _ in range(11)]

    # A stage's last step goes straight on to the next stage's first; a run that has ended only writes again.
    assert statuses == [3] * 9 + [0, 0]
    weights, again = (torch.load(folder / "model.pth") for folder in (whole, parts))
    for name, tensor in weights.items():
        assert torch.equal(tensor, again[name]), name
    logs = [[json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in (whole, parts)]
    for lines in logs:
        assert [(line["stage"], line["step"]) for line in lines] == [
            (stage, n) for stage, steps in enumerate((3, 4, 5)) for n in range(1, steps + 1)
        ]
    assert [line["loss"] for line in logs[0]] == [line["loss"] for line in logs[1]]


def test_what_it_writes_is_a_checkpoint_and_says_what_it_is_from(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _train(monkeypatch, *inputs, "-o", str(tmp_path / "run")) == 0

    loaded = load_model(read_checkpoint(tmp_path / "run" / "model.pth"))

    assert (loaded.family, loaded.variant, loaded.image_size) == ("sam", "vit_d32x2", 64)
    record = json.loads((tmp_path / "run" / "model.json").read_text())
    assert record["recipe"]["width"] == 32
    assert {"data_sha256", "decoder_sha256", "model_sha256", "versions"} <= record.keys()
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000


def test_it_learns(tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_KEPT_EVERY", 100)
    stage = Stage(32, images=8, objects=3, steps=60, encoder_lr=2e-3, decoder_lr=1e-3, synthetic=0.0, warmup=5)
    monkeypatch.setitem(RECIPES, "tiny", replace(TINY, stages=(stage,), rounds=(1.0,)))

    assert _train(monkeypatch, *inputs, "-o", str(tmp_path / "run")) == 0

    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    for name in ("iou_box", "iou_point"):
        first, last = (np.mean([line[name] for line in part]) for part in (lines[:10], lines[-10:]))
        assert last > first + 0.2, name


def test_other_data_than_the_checkpoint_was_made_from_is_refused(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*inputs, "-o", str(tmp_path / "run")]
    assert _train(monkeypatch, *words, "--stop-after", "1e-9") == 3
    torch.save({"other": torch.zeros(1)}, tmp_path / "decoder.pth")

    assert _train(monkeypatch, *words) == 1
    assert "other data, another decoder or another recipe" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_told(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK\x03\x04 half of it")

    assert _train(monkeypatch, *inputs, "-o", str(tmp_path / "run")) == 1
    assert "damaged" in capsys.readouterr().err


def test_a_loss_that_is_not_a_number_ends_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*inputs, "-o", str(tmp_path / "run")]
    assert _train(monkeypatch, *words, "--stop-after", "1e-9") == 3
    kept = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(train, "grouping_loss", lambda *_: {"loss": torch.tensor(float("nan"), requires_grad=True)})

    assert _train(monkeypatch, *words) == 1
    assert "learning rate" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == kept


def test_the_weights_written_are_averages_that_survive_a_stop(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "tiny", replace(TINY, averaged=0.5, held_out=1))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert _train(monkeypatch, *inputs, "-o", str(whole)) == 0
    assert _train(monkeypatch, *inputs, "-o", str(parts), "--stop-after", "1e-9") == 3
    assert _train(monkeypatch, *inputs, "-o", str(parts)) == 0

    kept, weights = torch.load(whole / "checkpoint.pt"), torch.load(whole / "model.pth")
    name = "image_encoder.neck.0.weight"
    assert torch.equal(weights[name], kept["average"][name].half())
    assert not torch.equal(kept["average"][name], kept["state"][name])
    again = torch.load(parts / "model.pth")
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())


def test_a_trunk_is_trained_from_its_coarser_stages_on(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = Stage(64, images=2, objects=2, steps=1, encoder_lr=1e-3, decoder_lr=1e-4, warmup=1)
    stages = (frozen, replace(frozen, trunk_lr=1e-3, zoomed=0.5, crowded=0.5, edge_weight=1.0))
    recipe = replace(TINY, trunk=SMALL_CONV_VIT.trunk, stages=stages, whole_half=True)
    monkeypatch.setitem(RECIPES, "tiny", recipe)
    torch.save(released_trunk(), tmp_path / "trunk.pth")
    words = [*inputs, "--trunk", str(tmp_path / "trunk.pth"), "-o", str(tmp_path / "run")]
    monkeypatch.delattr(train, "_patches")  # which only a patch embedding starts from

    assert _train(monkeypatch, *words) == 0

    found = torch.load(tmp_path / "run" / "checkpoint.pt")["state"]
    start = trunk_state(released_trunk(), SMALL_CONV_VIT.trunk)
    changed = {name for name, tensor in start.items() if not torch.equal(tensor, found[f"image_encoder.trunk.{name}"])}
    assert not any(name.startswith(("stem.", "stages.0.", "stages.1.")) for name in changed)
    assert {name.split(".")[1] for name in changed} == {"2", "3", "4", "5"}

    torch.save({**released_trunk(), "other": torch.zeros(1)}, tmp_path / "trunk.pth")
    assert _train(monkeypatch, *words) == 1
    assert "another trunk or another recipe" in capsys.readouterr().err


def test_a_recipe_with_a_trunk_asks_for_its_weights(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(RECIPES, "tiny", replace(TINY, trunk=SMALL_CONV_VIT.trunk))

    assert _train(monkeypatch, *inputs, "-o", str(tmp_path / "run")) == 1
    assert "--trunk is missing: the recipe tiny starts from a pretrained trunk" in capsys.readouterr().err
    assert _train(monkeypatch, *inputs, "--trunk", "absent", "-o", str(tmp_path / "run")) == 1
    assert "there is no file absent; fetch the trunk's weights with `python -m training.efficientnet`" in (
        capsys.readouterr().err
    )


def test_a_recipe_without_a_trunk_takes_none(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*inputs, "--trunk", str(tmp_path / "decoder.pth"), "-o", str(tmp_path / "run"), "--stop-after", "1e-9"]
    assert _train(monkeypatch, *words) == 1
    assert "the recipe tiny has no trunk; leave --trunk out" in capsys.readouterr().err


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """A clock that goes on by a fifth of a second whenever it is looked at: five times in a step."""
    now = [0.0]

    def look() -> float:
        now[0] += 0.2
        return now[0]

    for module in (train, rehearsal):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=look, time=look))
    return look


def test_by_the_clock_it_ends_in_time_with_rates_of_zero(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, ticking: Callable[[], float]
) -> None:
    assert _train(monkeypatch, *inputs, "-o", str(tmp_path / "run"), "--seconds", "40") == 0
    assert 30 < ticking() < 40

    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["lr"] == 0
    assert all(line["lr"] > 0 for line in lines[:-1])
    clock = json.loads((tmp_path / "run" / "model.json").read_text())["clock"]
    assert clock["steps"] == [sum(line["stage"] == stage for line in lines) for stage in range(3)]
    assert min(clock["steps"]) >= 3
    assert [call["seconds"] for call in clock["calls"]] == [40]
    assert 30 < clock["took_seconds"] < 40
    assert {line["skipped"] for line in lines} == {0.0}


@pytest.mark.usefixtures("ticking")
def test_by_the_clock_it_says_which_sides_were_compiled(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiles(model: PromptableModel, by_blocks: bool) -> None:
        assert by_blocks
        if model.side == 64:
            raise RuntimeError("no compiler")

    monkeypatch.setattr(PromptableModel, "compile_parts", compiles)
    words = [word for word in inputs if word != "--eager"]
    assert _train(monkeypatch, *words, "-o", str(tmp_path / "run"), "--seconds", "40") == 0

    assert json.loads((tmp_path / "run" / "model.json").read_text())["compiled"] == [32]


@pytest.mark.usefixtures("ticking")
@pytest.mark.parametrize("row", [9, 10])
def test_by_the_clock_a_step_that_is_not_finite_is_skipped_unless_ten_are_in_a_row(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], row: int
) -> None:
    clip, step = torch.nn.utils.clip_grad_norm_, train.Run._step
    bad, moved = [False], {}

    def steps(run: train.Run, model: PromptableModel, optimizer: object, at: tuple[int, int], *rest: object) -> object:
        bad[0] = at[0] == 1 and at[1] < row  # also all that is rehearsed of this stage, as its step 0
        before = model.sam.image_encoder.pos_embed.detach().clone()
        figures = step(run, model, optimizer, at, *rest)
        moved[at] = not torch.equal(before, model.sam.image_encoder.pos_embed)
        return figures

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *rest: clip(*rest) * (math.inf if bad[0] else 1))
    monkeypatch.setattr(train.Run, "_step", steps)
    status = _train(monkeypatch, *inputs, "-o", str(tmp_path / "run"), "--seconds", "70")

    assert status == (row == 10)
    assert ("the gradient is inf in step 9 of stage 1" in capsys.readouterr().err) == (row == 10)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["skipped"]] == [*range(1, 10)]
    assert {step for (index, step), changed in moved.items() if index == 1 and not changed} == {*range(row)}


def test_the_seconds_to_stop_after_begin_with_the_call(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, kept = [0.0], train.Run._kept

    def slow(run: train.Run) -> dict[str, object]:
        now[0] += 100
        return kept(run)

    for module in (train, schedule):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0], time=lambda: now[0]))
    monkeypatch.setattr(train.Run, "_kept", slow)

    assert _train(monkeypatch, *inputs, "-o", str(tmp_path / "run"), "--stop-after", "50") == 3


def test_a_rehearsal_changes_no_weight(tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[train.Run] = []
    monkeypatch.setattr(train.Run, "go", lambda run: begun.append(run) or 0)
    assert _train(monkeypatch, *inputs, "-o", str(tmp_path / "run"), "--seconds", "60") == 0

    (run,) = begun
    kept = run._kept()
    run._schedule(kept)

    assert list(run.models) == [64, 32]
    for side, model in run.models.items():
        weights = PromptableModel(kept["state"], side).state_dict()
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, weights[name]), name


def test_a_rehearsal_leaves_no_gradient_on_what_a_stage_freezes(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = Stage(64, images=2, objects=2, steps=1, encoder_lr=1e-3, decoder_lr=1e-4, warmup=1)
    recipe = replace(TINY, trunk=SMALL_CONV_VIT.trunk, stages=(frozen, replace(frozen, trunk_lr=1e-3)))
    monkeypatch.setitem(RECIPES, "tiny", recipe)
    torch.save(released_trunk(), tmp_path / "trunk.pth")
    begun: list[train.Run] = []
    monkeypatch.setattr(train.Run, "go", lambda run: begun.append(run) or 0)
    words = [*inputs, "--trunk", str(tmp_path / "trunk.pth"), "-o", str(tmp_path / "run"), "--seconds", "60"]
    assert _train(monkeypatch, *words) == 0
    (run,) = begun
    run._schedule(run._kept())

    model = run.models[64]
    assert any(parameter.grad is not None for parameter in model.sam.image_encoder.trunk.parameters())
    model.begin(recipe.stages[0])

    assert [name for name, each in model.named_parameters() if not each.requires_grad and each.grad is not None] == []


@pytest.mark.usefixtures("ticking")
def test_a_stopped_run_by_the_clock_goes_on_with_what_is_left(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*inputs, "-o", str(tmp_path / "run")]
    step = train.Run._step

    def stops(run: train.Run, model: object, optimizer: object, at: object, *rest: object) -> dict[str, float]:
        if at == (1, 2):
            raise KeyboardInterrupt
        return step(run, model, optimizer, at, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(train.Run, "_step", stops)
        patch.setattr(schedule, "_KEPT_EVERY_SECONDS", 0.0)  # after each step
        assert _train(patch, *words, "--seconds", "40") == 130
    kept = torch.load(tmp_path / "run" / "checkpoint.pt")
    assert (kept["stage"], kept["step"]) == (1, 2)
    assert (tmp_path / "run" / "model.pth").exists()

    assert _train(monkeypatch, *words) == 1
    assert "comes from a run by the clock" in capsys.readouterr().err
    assert _train(monkeypatch, *words, "--seconds", "35") == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    places = [(line["stage"], line["step"]) for line in lines]
    assert places == sorted(set(places))
    assert [line["progress"] for line in lines] == sorted(line["progress"] for line in lines)
    clock = json.loads((tmp_path / "run" / "model.json").read_text())["clock"]
    assert [call["seconds"] for call in clock["calls"]] == [40, 35]
    assert clock["ends"] == kept["clock"]["ends"]
    assert lines[-1]["lr"] == 0


@pytest.mark.usefixtures("ticking")
def test_too_few_seconds_are_told_with_how_many_would_do(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*inputs, "-o", str(tmp_path / "run"), "--seconds"]
    assert _train(monkeypatch, *words, "2") == 1
    told = re.search(r"2 seconds are too few: .* give (\d+) seconds or more", capsys.readouterr().err)
    assert told
    assert 8 <= int(told[1]) <= 30


@pytest.mark.usefixtures("ticking")
def test_a_last_stage_without_time_is_no_finished_model(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = train.Run._step

    def slow(run: train.Run, model: object, optimizer: object, at: object, *rest: object) -> dict[str, float]:
        if at == (1, 1):
            while train.time.monotonic() < 38:
                pass
        return step(run, model, optimizer, at, *rest)

    monkeypatch.setattr(train.Run, "_step", slow)
    assert _train(monkeypatch, *inputs, "-o", str(tmp_path / "run"), "--seconds", "40") == 1

    assert "too few to lower the rates" in capsys.readouterr().err
    assert (tmp_path / "run" / "model.pth").exists()
    assert not (tmp_path / "run" / "model.json").exists()


def test_a_gradient_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*inputs, "-o", str(tmp_path / "run")]
    assert _train(monkeypatch, *words, "--stop-after", "1e-9") == 3
    kept = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))

    assert _train(monkeypatch, *words) == 1
    assert "the gradient is inf" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == kept


def test_another_recipe_does_not_go_on_from_a_checkpoint(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*inputs, "-o", str(tmp_path / "run"), "--stop-after", "1e-9"]
    assert _train(monkeypatch, *words) == 3
    # Of the same name, with a later stage that is longer: it would be told as if all of it had been run.
    *first, last = TINY.stages
    monkeypatch.setitem(RECIPES, "tiny", replace(TINY, stages=(*first, replace(last, steps=9))))

    assert _train(monkeypatch, *words) == 1
    assert "another recipe" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "remedy"), [("--data", "training.pack"), ("--decoder", "lite_medsam.py")])
def test_a_missing_file_is_told_with_where_to_get_it(
    inputs: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    remedy: str,
) -> None:
    assert _train(monkeypatch, *inputs, option, "absent", "-o", str(tmp_path / "run")) == 1
    assert remedy in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_foreign_checkpoint_is_told(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    torch.save({"weights": torch.zeros(1)}, tmp_path / "run" / "checkpoint.pt")

    assert _train(monkeypatch, *inputs, "-o", str(tmp_path / "run")) == 1
    assert "no checkpoint of a training run" in capsys.readouterr().err
