"""`training/carry.py`: what goes to a machine without a network."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from training_fixtures import TINY, decoder_state, discs, write_data_set, write_decoder

from samrt.errors import InputError
from samrt_export.checkpoint import read_checkpoint
from training import carry
from training.model import initial_state
from training.pack import unpack


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    return write_data_set(tmp_path / "data"), write_decoder(tmp_path / "decoder.pth")


def test_a_run_starts_from_what_is_carried_as_from_the_checkpoint(tmp_path: Path, sources: tuple[Path, Path]) -> None:
    sizes = carry.carry(sources[0], ("decoder.pth", carry.decoder_of(sources[1])), tmp_path / "carried")

    assert sizes == {name: (tmp_path / "carried" / name).stat().st_size for name in ("decoder.pth", "packed.npz")}
    assert sizes["decoder.pth"] < 0.55 * sources[1].stat().st_size
    patches = torch.randn(100, 3, 8, 8)
    whole = initial_state(TINY, decoder_state(), patches)
    carried = initial_state(TINY, read_checkpoint(tmp_path / "carried" / "decoder.pth").state, patches)
    for name, tensor in whole.items():
        torch.testing.assert_close(carried[name], tensor, rtol=2**-10, atol=1e-7)  # half precision


def test_a_whole_model_is_carried_beside_photographs_at_512_pixels(
    tmp_path: Path, sources: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "carried"
    monkeypatch.setattr(sys, "argv", ["carry", str(sources[0]), "--start", str(sources[1]), "-o", str(folder)])
    assert carry.main() == 0

    assert {path.name for path in folder.iterdir()} == {"packed.npz", "start.pth"}
    assert read_checkpoint(folder / "start.pth").state.keys() == decoder_state().keys()
    for found, original in zip(unpack(folder / "packed.npz")["discs"], discs()["discs"], strict=True):
        assert found.image.shape == (384, 512, 3)
        large = cv2.resize(original.image, (512, 384))
        assert np.abs(found.image.astype(int) - large).mean() < 12  # colours in their order, which are noise here


def test_too_much_is_not_written(
    tmp_path: Path,
    sources: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "carried"
    words = ["carry", str(sources[0]), "--decoder", str(sources[1]), "-o", str(folder)]
    monkeypatch.setattr(sys, "argv", words)
    assert carry.main() == 0
    assert "together: " in capsys.readouterr().out
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    total = sum(map(len, before.values()))

    monkeypatch.setattr(carry, "LIMIT", total - 1)
    assert carry.main() == 1
    assert "nothing was written; give a --quality below 48" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    monkeypatch.setattr(sys, "argv", [*words, "--quality", "20"])
    assert carry.main() == 0


def test_a_missing_decoder_is_told_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lite_medsam\.py"):
        carry.decoder_of(tmp_path / "absent.pth")
