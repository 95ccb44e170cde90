"""A few kills of every command; `make kills` does more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fcntl")
pytest.importorskip("tensorrt_rtx")


def test_killed_commands_break_nothing_and_leave_nothing(small_checkpoint: Path, small_bundle: Path) -> None:
    commands = ("export", "build, two renames", "eval --restart")
    words = [word for name in commands for word in ("--only", name)]
    done = subprocess.run(
        [sys.executable, "-m", "kills", "6", "--checkpoint", small_checkpoint, "--bundle", small_bundle, *words],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
