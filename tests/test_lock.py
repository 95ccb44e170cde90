"""A folder that one process works in at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from samrt.errors import OutputError
from samrt.lock import LOCK_NAME, folder_lock

pytest.importorskip("fcntl")

_HOLD = """
import sys
from pathlib import Path
from samrt.lock import folder_lock
with folder_lock(Path(sys.argv[1]), "evaluation"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(OutputError, match=f"another evaluation is at work in .*: process {other.pid} on"),
            folder_lock(tmp_path, "evaluation"),
        ):
            pass
        other.kill()
    # What it left behind does not matter: the system gave its lock back.
    assert (tmp_path / LOCK_NAME).exists()
    with folder_lock(tmp_path, "evaluation"):
        assert f"process {os.getpid()} " in (tmp_path / LOCK_NAME).read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_its_place_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / LOCK_NAME).symlink_to(tmp_path / "kept")
    with pytest.raises(OutputError, match="cannot write"), folder_lock(tmp_path / "folder", "evaluation"):
        pass
    assert (tmp_path / "kept").read_text() == "kept"
