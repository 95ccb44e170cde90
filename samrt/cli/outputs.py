"""Where commands write: the values of -o, --json and their like."""

from __future__ import annotations

import argparse
from pathlib import Path

STDOUT = "-"
_STDOUT_NAMES = (STDOUT, "/dev/stdout", "/dev/fd/1")


def output_path(text: str) -> Path:
    """The path of a file or a folder that a command writes."""
    if text in _STDOUT_NAMES:
        raise argparse.ArgumentTypeError("it is not written to stdout; give it a name (./- for the name -)")
    return Path(text)


def output_path_or_stdout(text: str) -> Path | str:
    """The same, or `STDOUT`."""
    return STDOUT if text in _STDOUT_NAMES else Path(text)
