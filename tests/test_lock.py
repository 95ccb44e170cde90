"""A folder that one process works in at a time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from leftovers import NO_LOCKS

from samrt.errors import OutputError
from samrt.lock import LOCK_NAME, NoLocksError, folder_lock, take

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


def test_a_pipe_in_its_place_is_no_lock(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK_NAME)
    with pytest.raises(OutputError, match=r"a pipe or a device of that name exists; .*, or remove what is there"):
        hold(tmp_path)


def test_after_a_full_disk_the_folder_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OutputError, match="No space left on device"):
            hold(tmp_path)
    hold(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", [None, NO_LOCKS])
def test_without_locks_nobody_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", module)
    with pytest.raises(NoLocksError):
        take(tmp_path / LOCK_NAME, b"")
    with folder_lock(tmp_path, "evaluation"):
        hold(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_the_work_is_not_hidden_by_that_of_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()

    def spoil() -> None:
        folder.rename(tmp_path / "elsewhere")
        folder.touch()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), folder_lock(folder, "evaluation"):
        spoil()


def hold(folder: Path) -> None:
    with folder_lock(folder, "evaluation"):
        pass
