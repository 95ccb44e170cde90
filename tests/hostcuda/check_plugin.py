"""Engines that need samrt's plugin, on the driver of `libcuda.c` with the stand-in TensorRT; `outside.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostcuda.fake_tensorrt import fake_flavour
from hostcuda.written_engines import write_engines
from stub_plugin import compile_stub
from toy_bundle import write_toy_bundle

import samrt
from samrt.backends import session as backends
from samrt.engines import selection
from samrt.engines.flavours import Flavour
from samrt.engines.plugin import PLUGIN
from samrt.engines.profiles import BuildLimits
from samrt.errors import BackendError
from samrt.kernels.library import PLUGIN_VARIABLE

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
BOX = [10.0, 5.0, 60.0, 35.0]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_toy_bundle(tmp_path / "bundle")


@pytest.fixture
def flavour(monkeypatch: pytest.MonkeyPatch) -> Flavour:
    """Stock TensorRT, in a process of its own that nothing was loaded into."""
    stock = fake_flavour()
    for module in (backends, selection):
        monkeypatch.setattr(module, "import_flavour", lambda _: stock)
    monkeypatch.setattr(selection, "installed_flavours", lambda: {"tensorrt": "0"})
    return stock


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = compile_stub(tmp_path)
    monkeypatch.setenv(PLUGIN_VARIABLE, str(path))
    return path


def test_the_library_is_loaded_once_and_before_the_plans(bundle: Path, flavour: Flavour, library: Path) -> None:
    write_engines(bundle, "tensorrt", BuildLimits(), PLUGIN)
    expected = samrt.load(bundle, backend="onnxruntime").encode(IMAGE).features["image_embeddings"]
    for _ in range(2):
        with samrt.load(bundle) as model:
            assert model.backend == "tensorrt"
            np.testing.assert_array_equal(model.encode(IMAGE).features["image_embeddings"].numpy(), expected)
    assert flavour.module.registry.libraries == [str(library)]


def test_a_library_that_the_program_loaded_itself_is_used(bundle: Path, flavour: Flavour, library: Path) -> None:
    flavour.module.registry.load_library(str(library))
    write_engines(bundle, "tensorrt", BuildLimits(), PLUGIN)
    with samrt.load(bundle, backend="tensorrt") as model:
        assert model.predict(model.encode(IMAGE), box=BOX).masks.shape[1:] == (40, 90)


def test_engines_that_need_no_plugin_do_not_load_it(bundle: Path, flavour: Flavour, library: Path) -> None:
    write_engines(bundle, "tensorrt", BuildLimits())
    with samrt.load(bundle, backend="tensorrt"):
        assert flavour.module.registry.libraries == []


def test_without_the_library_the_engines_are_skipped(
    bundle: Path, flavour: Flavour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLUGIN_VARIABLE, str(tmp_path / "absent.so"))
    write_engines(bundle, "tensorrt", BuildLimits(), PLUGIN)
    with samrt.load(bundle) as model:
        assert model.backend == "onnxruntime"
        (reason,) = map(str, model.choice.skipped)
    assert "samrt's TensorRT plugin cannot be used: SAMRT_PLUGIN_LIBRARY names" in reason
    with pytest.raises(BackendError, match=r"no engines of tensorrt .* can run here: .*absent\.so"):
        samrt.load(bundle, backend="tensorrt")
    assert flavour.module.engines == []


@pytest.mark.parametrize(("ours", "theirs"), [(0, 1), (1, 0)])
def test_kernels_of_another_version_are_noticed_before_a_plan_is_opened(
    bundle: Path, flavour: Flavour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: int, theirs: int
) -> None:
    """Either the library here is of another version than this samrt, or the engines are."""
    library = compile_stub(tmp_path, version=PLUGIN.kernels_version + ours)
    monkeypatch.setenv(PLUGIN_VARIABLE, str(library))
    needed = replace(PLUGIN, kernels_version=PLUGIN.kernels_version + theirs)
    write_engines(bundle, "tensorrt", BuildLimits(), needed)
    other = PLUGIN.kernels_version + 1
    said = f"is of version {other}, and this samrt needs" if ours else f"of version {other}, this samrt has plugin"
    with pytest.raises(BackendError, match=said):
        samrt.load(bundle, backend="tensorrt")
    assert flavour.module.engines == []


def test_a_library_that_tensorrt_refuses_is_an_error(
    bundle: Path, flavour: Flavour, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flavour.module.registry, "load_library", lambda _: None)
    write_engines(bundle, "tensorrt", BuildLimits(), PLUGIN)
    with pytest.raises(BackendError, match=r"TensorRT 0 rejects samrt's plugin in .*'auto', 'augmented'"):
        samrt.load(bundle, backend="tensorrt")
    assert flavour.module.engines == []


def test_the_stand_in_needs_the_library_as_tensorrt_does(
    bundle: Path, flavour: Flavour, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it a plan with the plugin does not open: what the checks above rely on."""
    nothing: Any = lambda _: None  # noqa: E731
    monkeypatch.setattr(backends, "register_plugin", nothing)
    write_engines(bundle, "tensorrt", BuildLimits(), PLUGIN)
    with pytest.raises(BackendError, match="Cannot find plugin: SamrtRelPosAttention"):
        samrt.load(bundle, backend="tensorrt")
