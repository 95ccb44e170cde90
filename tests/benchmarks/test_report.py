"""The reports of benchmarks, which replace reports only."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_only_reports_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import report

    parser = argparse.ArgumentParser()
    report.add_output(parser)
    path = tmp_path / "a.json"
    for value in (1, 2):
        report.write_report(parser.parse_args(["-o", str(path)]).output, {"benchmark": "toy", "value": value})
        assert json.loads(path.read_text())["value"] == value
    path.write_text("notes")
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["-o", str(path)])
    assert "samrt did not write it; choose another name" in capsys.readouterr().err
    assert path.read_text() == "notes"
    for made in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert report.MARK in made.read_bytes()[:512], made
