"""`training/validate.py`: what it says of photographs and scores that give no figures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training_fixtures import decoder_state, write_data_set

from training import validate
from training.pack import pack


def test_too_few_photographs_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(write_data_set(tmp_path / "data"), tmp_path / "packed.npz")
    torch.save(decoder_state(), tmp_path / "model.pth")
    words = [str(tmp_path / "model.pth"), "--data", str(tmp_path / "packed.npz"), "--side", "64"]
    monkeypatch.setattr(sys, "argv", ["validate", *words])

    assert validate.main() == 1
    assert "discs has fewer than 4 pictures to score, of 3 that" in capsys.readouterr().err


def test_scores_that_do_not_vary_have_no_correlation() -> None:
    same, ramp = np.ones(4), np.arange(4.0)
    means = validate._means({"box": ramp, "_box_said": ramp, "point": ramp, "_point_said": same})
    assert (means["correlation_box"], means["correlation_point"]) == (1.0, None)
