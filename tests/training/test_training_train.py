"""`training/train.py`: a resumed run is the run that was not stopped, and what it writes is a checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import SMALL_CONV_VIT, released_trunk
from training_fixtures import TINY, train_tiny

from samrt_export.checkpoint import read_checkpoint
from samrt_export.families import load_model
from training import schedule, step, train
from training.efficientnet import trunk_state
from training.recipes import RECIPES, Stage


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train_tiny(monkeypatch, *inputs, "-o", str(whole)) == 0
    # Every call ends after the one step that it is given time for.
    statuses = [train_tiny(monkeypatch, *inputs, "-o", str(parts), "--stop-after", "1e-9") for _ in range(11)]

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
    assert train_tiny(monkeypatch, *inputs, "-o", str(tmp_path / "run")) == 0

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

    assert train_tiny(monkeypatch, *inputs, "-o", str(tmp_path / "run")) == 0

    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    for name in ("iou_box", "iou_point"):
        first, last = (np.mean([line[name] for line in part]) for part in (lines[:10], lines[-10:]))
        assert last > first + 0.2, name


def test_other_data_than_the_checkpoint_was_made_from_is_refused(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*inputs, "-o", str(tmp_path / "run")]
    assert train_tiny(monkeypatch, *words, "--stop-after", "1e-9") == 3
    torch.save({"other": torch.zeros(1)}, tmp_path / "decoder.pth")

    assert train_tiny(monkeypatch, *words) == 1
    assert "other data, other first weights or another recipe" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_told(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK\x03\x04 half of it")

    assert train_tiny(monkeypatch, *inputs, "-o", str(tmp_path / "run")) == 1
    assert "damaged" in capsys.readouterr().err


def test_a_loss_that_is_not_a_number_ends_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*inputs, "-o", str(tmp_path / "run")]
    assert train_tiny(monkeypatch, *words, "--stop-after", "1e-9") == 3
    kept = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(step, "grouping_loss", lambda *_: {"loss": torch.tensor(float("nan"), requires_grad=True)})

    assert train_tiny(monkeypatch, *words) == 1
    assert "learning rate" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == kept


def test_the_weights_written_are_averages_that_survive_a_stop(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "tiny", replace(TINY, averaged=0.5, held_out=1))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train_tiny(monkeypatch, *inputs, "-o", str(whole)) == 0
    assert train_tiny(monkeypatch, *inputs, "-o", str(parts), "--stop-after", "1e-9") == 3
    assert train_tiny(monkeypatch, *inputs, "-o", str(parts)) == 0

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

    assert train_tiny(monkeypatch, *words) == 0

    found = torch.load(tmp_path / "run" / "checkpoint.pt")["state"]
    start = trunk_state(released_trunk(), SMALL_CONV_VIT.trunk)
    changed = {name for name, tensor in start.items() if not torch.equal(tensor, found[f"image_encoder.trunk.{name}"])}
    assert not any(name.startswith(("stem.", "stages.0.", "stages.1.")) for name in changed)
    assert {name.split(".")[1] for name in changed} == {"2", "3", "4", "5"}

    torch.save({**released_trunk(), "other": torch.zeros(1)}, tmp_path / "trunk.pth")
    assert train_tiny(monkeypatch, *words) == 1
    assert "other first weights or another recipe" in capsys.readouterr().err


def test_a_recipe_with_a_trunk_asks_for_its_weights(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(RECIPES, "tiny", replace(TINY, trunk=SMALL_CONV_VIT.trunk))

    assert train_tiny(monkeypatch, *inputs, "-o", str(tmp_path / "run")) == 1
    assert "--trunk is missing: the recipe tiny starts from a pretrained trunk" in capsys.readouterr().err
    assert train_tiny(monkeypatch, *inputs, "--trunk", "absent", "-o", str(tmp_path / "run")) == 1
    assert "there is no file absent; fetch the trunk's weights with `python -m training.efficientnet`" in (
        capsys.readouterr().err
    )


def test_a_recipe_without_a_trunk_takes_none(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*inputs, "--trunk", str(tmp_path / "decoder.pth"), "-o", str(tmp_path / "run"), "--stop-after", "1e-9"]
    assert train_tiny(monkeypatch, *words) == 1
    assert "the recipe tiny has no trunk; leave --trunk out" in capsys.readouterr().err


def test_a_gradient_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*inputs, "-o", str(tmp_path / "run")]
    assert train_tiny(monkeypatch, *words, "--stop-after", "1e-9") == 3
    kept = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))

    assert train_tiny(monkeypatch, *words) == 1
    assert "the gradient is inf" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == kept


def test_another_recipe_does_not_go_on_from_a_checkpoint(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*inputs, "-o", str(tmp_path / "run"), "--stop-after", "1e-9"]
    assert train_tiny(monkeypatch, *words) == 3
    # Of the same name, with a later stage that is longer: it would be told as if all of it had been run.
    *first, last = TINY.stages
    monkeypatch.setitem(RECIPES, "tiny", replace(TINY, stages=(*first, replace(last, steps=9))))

    assert train_tiny(monkeypatch, *words) == 1
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
    assert train_tiny(monkeypatch, *inputs, option, "absent", "-o", str(tmp_path / "run")) == 1
    assert remedy in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_it_starts_from_all_weights_of_another_run(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--start", str(tmp_path / "whole" / "model.pth")]
    assert train_tiny(monkeypatch, *inputs, "-o", str(tmp_path / "whole")) == 0
    assert train_tiny(monkeypatch, *inputs, *given, "-o", str(tmp_path / "run")) == 1
    assert "leave --decoder and --trunk out" in capsys.readouterr().err
    still = [replace(stage, encoder_lr=0.0, decoder_lr=0.0) for stage in TINY.stages]
    monkeypatch.setitem(RECIPES, "tiny", replace(TINY, stages=tuple(still)))
    words = [word for word in inputs if "decoder" not in word]
    assert train_tiny(monkeypatch, *words, *given, "-o", str(tmp_path / "run")) == 0

    weights, again = (torch.load(tmp_path / name / "model.pth") for name in ("whole", "run"))
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items() if "pos" not in name)
    assert "start_sha256" in json.loads((tmp_path / "run" / "model.json").read_text())


def test_a_foreign_checkpoint_is_told(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    torch.save({"weights": torch.zeros(1)}, tmp_path / "run" / "checkpoint.pt")

    assert train_tiny(monkeypatch, *inputs, "-o", str(tmp_path / "run")) == 1
    assert "no checkpoint of a training run" in capsys.readouterr().err
