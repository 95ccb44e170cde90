"""Fixtures around the toy bundle; a test file takes them with `pytest_plugins = ("toy_fixtures",)`."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_bundle import write_toy_bundle

import samrt


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle shared by many tests: do not change it."""
    return write_toy_bundle(tmp_path_factory.mktemp("toy") / "bundle")


@pytest.fixture(scope="session")
def toy_model(toy_bundle: Path) -> samrt.Model:
    """The model of that bundle: do not close it."""
    return samrt.load(toy_bundle)


@pytest.fixture
def own_bundle(tmp_path: Path) -> Path:
    """A bundle to damage."""
    return write_toy_bundle(tmp_path / "bundle")
