"""kernels/lab: every version can be made, and the tables are of the kernel that is compiled."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from kernel_builds import ROOT, needs


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("attention_lab", ROOT / "kernels" / "lab" / "attention.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclasses
    spec.loader.exec_module(module)
    return module


lab = _load()
COUNTS = [lab.Count(**row) for row in json.loads(lab.COUNTS.read_text())["counts"]]


@pytest.mark.parametrize("name", lab.VERSIONS)
def test_every_version_can_be_made(name: str, tmp_path: Path) -> None:
    needs("patch")
    lab.source_of(lab.VERSIONS[name], tmp_path)


def test_the_newest_version_has_the_registers_of_the_kernel_that_is_compiled() -> None:
    """A change of the loop that keeps them is not noticed: count anew after each (kernels/lab/attention.py --write)."""
    table = json.loads((ROOT / "kernels" / "resources.json").read_text())
    shapes = [tile["name"] for tile in table["tiles"] if tile["head_dim"] == 64]
    newest = [count for count in COUNTS if count.version == lab.NEWEST]
    assert newest
    for count in newest:
        kernel = table["kernels"][f"attention_kernel<__half, 64, {shapes.index(count.tile)}, true>"]
        assert count.registers == kernel[count.architecture]["registers"], count


def test_the_pages_have_the_counts() -> None:
    assert lab.before_and_after(COUNTS) in (ROOT / "docs" / "kernels.md").read_text()
    assert lab.by_version(COUNTS) in (lab.LAB / "README.md").read_text()
