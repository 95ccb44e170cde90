"""What a training run on the tiny recipe starts from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from training_fixtures import TINY, write_data_set, write_decoder

from training import log, schedule
from training.pack import pack
from training.recipes import RECIPES


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for one another cost small steps three times their time where other work shares the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "tiny", TINY)
    monkeypatch.setattr(log, "_LOGGED_EVERY", 1)
    monkeypatch.setattr(schedule, "_KEPT_EVERY", 1)


@pytest.fixture
def inputs(tmp_path: Path, one_thread: None, tiny_recipe: None) -> list[str]:
    """The arguments that name data and decoder, for `training_fixtures.train_tiny`."""
    pack(write_data_set(tmp_path / "data"), tmp_path / "packed.npz")
    decoder = write_decoder(tmp_path / "decoder.pth")
    return ["--data", str(tmp_path / "packed.npz"), "--decoder", str(decoder), "--device", "cpu", "--eager"]
