"""The JSON file of a benchmark, which never takes the place of a file that no benchmark wrote."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from samrt.errors import OutputError
from samrt.files import check_target, replacing_file

# The first key of every report.
MARK = b'"benchmark": "'


def add_output(parser: argparse.ArgumentParser) -> None:
    """Declare -o; the file is checked before anything is measured."""
    parser.add_argument("-o", "--output", type=_target, help="write the results here, as JSON")


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a report whose first key is "benchmark"."""
    with replacing_file(path, MARK) as fresh:
        fresh.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _target(text: str) -> Path:
    try:
        check_target(text, MARK)
    except OutputError as error:
        raise argparse.ArgumentTypeError(f"{error.facts}; choose another name, or remove it") from error
    return Path(text)
