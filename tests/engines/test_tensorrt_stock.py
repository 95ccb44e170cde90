"""Builds with stock TensorRT: for the GPU at hand, with a timing cache.

It needs a GPU to build at all. Here it is TensorRT-RTX's module in its place, which checks samrt's own logic and says
nothing about stock TensorRT.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy_builds import build_toy, toy_ranges

import samrt.device.gpus
from samrt.device.gpus import Gpu
from samrt.engines.builder.engine import BuildOptions, build_engine
from samrt.engines.flavours import Flavour
from samrt.errors import BackendError, InputError, OutputError
from samrt.progress import Lines

pytest_plugins = ("toy_fixtures", "tensorrt_fixtures")
pytestmark = pytest.mark.usefixtures("without_gpu")
ADA = Gpu(0, "a GPU", "8.9", 8 << 30)


@pytest.fixture
def stock(rtx: Flavour, monkeypatch: pytest.MonkeyPatch) -> Flavour:
    """TensorRT-RTX's module in the place of stock TensorRT, on a machine with a GPU."""
    monkeypatch.setattr(samrt.device.gpus, "find_gpus", lambda: [ADA])
    return Flavour("tensorrt", rtx.module, rtx.version)


def test_rtx_has_no_timing_cache(rtx: Flavour, toy_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no timing cache"):
        build_toy(rtx, toy_bundle, timing_cache=tmp_path / "cache")


def test_stock_builds_for_the_gpu_at_hand(stock: Flavour, toy_bundle: Path) -> None:
    assert build_toy(stock, toy_bundle).compute_capabilities == ("8.9",)
    assert build_toy(stock, toy_bundle, compute_capabilities=("8.9",)).compute_capabilities == ("8.9",)


@pytest.mark.parametrize("wanted", [("8.7",), ("8.9", "8.6"), ()])
def test_stock_builds_for_no_other_gpu(wanted: tuple[str, ...], stock: Flavour, toy_bundle: Path) -> None:
    with pytest.raises(InputError, match=r"GPU at hand alone, 8\.9, not for .*tensorrt_rtx"):
        build_toy(stock, toy_bundle, compute_capabilities=wanted)


def test_stock_needs_a_gpu(rtx: Flavour, toy_bundle: Path) -> None:
    with pytest.raises(BackendError, match=r"none was found: check the driver .* or build with tensorrt_rtx"):
        build_toy(Flavour("tensorrt", rtx.module, "10.3.0"), toy_bundle)


def test_a_builder_that_does_not_start(stock: Flavour, toy_bundle: Path) -> None:
    def builder(logger: Any) -> Any:
        logger.log(stock.module.ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("factory function returned nullptr")

    broken = Flavour("tensorrt", SimpleNamespace(**{**vars(stock.module), "Builder": builder}), "10.3.0")
    with pytest.raises(
        BackendError, match="cannot start its builder: CUDA initialization failure with error: 35; it needs"
    ):
        build_toy(broken, toy_bundle)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorRT-RTX, whose timing cache does nothing
def test_the_timing_cache_is_written_and_read(
    stock: Flavour, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bytes] = []
    trt = stock.module

    class Config:
        """The builder's configuration, but for an empty timing cache, which needs no GPU to be read."""

        def __init__(self, config: Any) -> None:
            object.__setattr__(self, "config", config)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.config, name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self.config, name, value)

        def create_timing_cache(self, content: bytes) -> Any:
            given.append(content)
            return self.config.create_timing_cache(b"")

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            assert not ignore_mismatch
            assert self.config.set_timing_cache(cache, ignore_mismatch)
            return given[-1] != b"of another version"

    class Builder(trt.Builder):  # type: ignore[misc, name-defined]
        def create_builder_config(self) -> Any:
            return Config(super().create_builder_config())

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            return super().build_serialized_network(network, config.config)

    flavour = Flavour("tensorrt", SimpleNamespace(**{**vars(trt), "Builder": Builder}), stock.version)
    cache = tmp_path / "kernels.cache"
    path, shapes, lines = toy_bundle / "encoder.onnx", toy_ranges("image_encoder"), list[str]()
    options = BuildOptions(timing_cache=cache)

    build_engine(flavour, path, shapes, options, Lines(lines.append))
    first = cache.read_bytes()
    assert first
    assert given == [b""]
    build_engine(flavour, path, shapes, options, Lines(lines.append))
    assert given == [b"", first]
    assert not any("timing cache" in line for line in lines)

    cache.write_bytes(b"of another version")
    with pytest.raises(OutputError, match=r"of another TensorRT or GPU; .* or have it made anew with overwrite=True"):
        build_engine(flavour, path, shapes, options, Lines(lines.append))
    assert cache.read_bytes() == b"of another version"
    build_engine(flavour, path, shapes, replace(options, overwrite=True), Lines(lines.append))
    assert given[3:] == [b"of another version", b""]
    assert "damaged, or of another TensorRT or GPU; it was made anew" in lines[-1]
    assert cache.read_bytes() == first


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_damaged_timing_cache_is_made_anew(stock: Flavour, toy_bundle: Path, tmp_path: Path) -> None:
    cache = tmp_path / "kernels.cache"
    cache.write_bytes(b"junk" * 40)
    lines: list[str] = []
    build_engine(
        stock,
        toy_bundle / "encoder.onnx",
        toy_ranges("image_encoder"),
        BuildOptions(timing_cache=cache, overwrite=True),
        Lines(lines.append),
    )
    assert f"the timing cache {cache} is damaged" in lines[-1]
    assert not cache.read_bytes().startswith(b"junk")


def test_a_timing_cache_that_cannot_be_written_is_told_first(stock: Flavour, toy_bundle: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    options = BuildOptions(timing_cache=tmp_path / "nowhere" / "cache")
    with pytest.raises(OutputError, match="does not exist"):
        build_engine(stock, toy_bundle / "encoder.onnx", toy_ranges("image_encoder"), options, Lines(lines.append))
    assert lines == []
