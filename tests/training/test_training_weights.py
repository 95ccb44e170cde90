"""`training/weights.py`: halves that join to the checkpoint they came from, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_fixtures import decoder_state

from samrt.errors import BundleError
from training.weights import HALVES, join, split, write_weights


def test_halves_join_to_the_same_bytes(tmp_path: Path) -> None:
    state = decoder_state()
    ordered = {name: state[name] for prefixes in HALVES.values() for name in state if name.startswith(prefixes)}
    assert ordered.keys() == state.keys()
    write_weights(ordered, tmp_path / "whole.pth")

    split(tmp_path / "whole.pth", tmp_path / "halves")
    join(tmp_path / "halves", tmp_path / "again.pth")

    assert (tmp_path / "again.pth").read_bytes() == (tmp_path / "whole.pth").read_bytes()
    weights = torch.load(tmp_path / "again.pth")
    for name, tensor in state.items():
        assert torch.equal(weights[name], tensor.half()), name


def test_a_missing_half_is_told(tmp_path: Path) -> None:
    write_weights(decoder_state(), tmp_path / "encoder.pth")

    with pytest.raises(BundleError, match=r"lacks decoder\.pth"):
        join(tmp_path, tmp_path / "whole.pth")

    assert not (tmp_path / "whole.pth").exists()


def test_a_parameter_of_neither_half_is_not_dropped_in_silence(tmp_path: Path) -> None:
    write_weights({**decoder_state(), "other.weight": torch.zeros(1)}, tmp_path / "whole.pth")

    with pytest.raises(BundleError, match=r"other\.weight"):
        split(tmp_path / "whole.pth", tmp_path / "halves")
