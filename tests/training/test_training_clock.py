"""`training/train.py` by the clock: a run that ends when it is told to."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from seeded import SMALL_CONV_VIT, released_trunk
from training_fixtures import TINY, train_tiny

from training import rehearsal, schedule, train
from training.model import PromptableModel
from training.recipes import RECIPES, Stage


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
    assert train_tiny(monkeypatch, *inputs, "-o", str(tmp_path / "run"), "--seconds", "40") == 0
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
    assert train_tiny(monkeypatch, *words, "-o", str(tmp_path / "run"), "--seconds", "40") == 0

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
    status = train_tiny(monkeypatch, *inputs, "-o", str(tmp_path / "run"), "--seconds", "70")

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

    assert train_tiny(monkeypatch, *inputs, "-o", str(tmp_path / "run"), "--stop-after", "50") == 3


def test_a_rehearsal_changes_no_weight(tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[train.Run] = []
    monkeypatch.setattr(train.Run, "go", lambda run: begun.append(run) or 0)
    assert train_tiny(monkeypatch, *inputs, "-o", str(tmp_path / "run"), "--seconds", "60") == 0

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
    assert train_tiny(monkeypatch, *words) == 0
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
        assert train_tiny(patch, *words, "--seconds", "40") == 130
    kept = torch.load(tmp_path / "run" / "checkpoint.pt")
    assert (kept["stage"], kept["step"]) == (1, 2)
    assert (tmp_path / "run" / "model.pth").exists()

    assert train_tiny(monkeypatch, *words) == 1
    assert "comes from a run by the clock" in capsys.readouterr().err
    assert train_tiny(monkeypatch, *words, "--seconds", "35") == 0
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
    assert train_tiny(monkeypatch, *words, "2") == 1
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
    assert train_tiny(monkeypatch, *inputs, "-o", str(tmp_path / "run"), "--seconds", "40") == 1

    assert "too few to lower the rates" in capsys.readouterr().err
    assert (tmp_path / "run" / "model.pth").exists()
    assert not (tmp_path / "run" / "model.json").exists()
