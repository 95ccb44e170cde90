"""Pictures that samrt writes: their pixels, and by what they are known again."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samrt.errors import OutputError
from samrt.png import write_png


def _photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(90, 190, (height, width, 3)).astype(np.uint8)


def test_writes_a_png_that_reads_back_the_same(tmp_path: Path) -> None:
    picture = _photograph(13, 17)
    write_png(tmp_path / "a.png", picture)
    with Image.open(tmp_path / "a.png") as read:
        read.verify()
        assert read.info["Software"] == "samrt"
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_full_disk_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", no_space)
    with pytest.raises(OutputError, match="No space left"):
        write_png(target, _photograph(3, 3), overwrite=True)
    monkeypatch.undo()
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_only_samrts_own_pictures_are_replaced(tmp_path: Path) -> None:
    target = tmp_path / "truth.png"
    Image.fromarray(_photograph(3, 3)).save(target)
    before = target.read_bytes()
    with pytest.raises(OutputError, match=r"truth.png exists, and samrt did not write it; .* with overwrite=True"):
        write_png(target, _photograph(5, 5))
    assert target.read_bytes() == before
    write_png(target, _photograph(5, 5), overwrite=True)
    write_png(target, _photograph(7, 7))
    assert Image.open(target).size == (7, 7)
