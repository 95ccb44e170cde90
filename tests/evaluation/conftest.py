"""Data sets and a second bundle for whole evaluations."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_data import IMAGES, write_data_set
from toy_bundle import MEAN_STD, write_toy_bundle

from samrt.bundle.contract import Normalization


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets; read them, do not change them."""
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder / "first", IMAGES)
    write_data_set(folder / "second", 2, first_seed=20, instances=2)
    return folder


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy with another normalisation, so that its masks differ."""
    assert MEAN_STD.kind != "min_max"
    return write_toy_bundle(tmp_path_factory.mktemp("other") / "bundle", normalization=Normalization("min_max"))
