"""A plugin of pytest that writes each test's outcome into the file $SAMRT_OUTCOMES as soon as there is one."""

from __future__ import annotations

import json
import os
from typing import Any

_TOLD = 600


def _write(kind: str, name: str, text: str = "") -> None:
    with open(os.environ["SAMRT_OUTCOMES"], "a", encoding="utf-8") as file:
        file.write(json.dumps([kind, name, text]) + "\n")


def pytest_runtest_logstart(nodeid: str) -> None:
    _write("began", nodeid)


def pytest_runtest_logreport(report: Any) -> None:
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _write("skipped", report.nodeid, reason[-_TOLD:])
    elif report.failed:
        _write("failed", report.nodeid, f"in its {report.when}: {report.longreprtext}"[-_TOLD:])
    elif report.when == "call":
        _write("passed", report.nodeid)


def pytest_collectreport(report: Any) -> None:
    if report.failed:
        _write("failed", report.nodeid, f"in collection: {report.longreprtext}"[-_TOLD:])
    elif report.skipped:
        _write("skipped", report.nodeid, str(report.longrepr[2])[-_TOLD:])
