"""A toy bundle with a form for samrt's plugin, and a library that stands in for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from stub_plugin import compile_stub, use_library
from toy_engines import with_forms


@pytest.fixture
def plugin_bundle(own_bundle: Path) -> Path:
    return with_forms(own_bundle, "fp32-dense", "fp16-plugin")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_library(compile_stub(tmp_path), monkeypatch)
