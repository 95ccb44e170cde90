"""Children forked from a process that has loaded a model: they work, and they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_bundle import write_toy_bundle

SCRIPT = Path(__file__).with_name("forked_children.py")
NAMES = [
    "nothing",
    "predict",
    "encode",
    "predictor",
    "delete",
    "close",
    "use_then_close",
    "grandchild",
    "threads",
    "resize",
    "end_at_once",
    "in_a_thread",
    "while_closing",
    "writing",
    "while_predicting",
    "while_loading",
    "bundle_written_anew",
    "bundle_gone",
    "bundle_damaged",
]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """How each child ended."""
    folder = tmp_path_factory.mktemp("fork")
    write_toy_bundle(folder / "bundle")
    command = [sys.executable, "-W", "error::RuntimeWarning", str(SCRIPT), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


_DURING_IMPORT = """
import sys, threading
from ending import ending
import samrt

def load():
    samrt.load(sys.argv[1]).close()

thread = threading.Thread(target=load)
thread.start()
while sys.argv[2] not in sys.modules:
    pass
print(ending(load))
thread.join()
"""


@pytest.mark.parametrize("module", ["samrt.model", "onnxruntime"])
def test_a_child_forked_while_a_thread_imports(module: str, tmp_path: Path) -> None:
    write_toy_bundle(tmp_path / "bundle")
    command = [sys.executable, "-W", "ignore", "-c", _DURING_IMPORT, str(tmp_path / "bundle"), module]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=SCRIPT.parent)
    assert result.stdout == "exit 0\n", result.stderr


def test_every_child_has_a_case(endings: dict[str, str]) -> None:
    assert [*endings] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_child_works_and_ends(endings: dict[str, str], name: str) -> None:
    assert endings[name] == "exit 0"
