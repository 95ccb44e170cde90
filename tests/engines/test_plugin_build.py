"""`samrt build` of a form with samrt's plugin, and what is said where it cannot be built.

There is no stock TensorRT here: its part is played by a registry and by ONNX Runtime, the library's by a stub.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from changed_json import changed
from stub_plugin import compile_stub, use_library
from toy_builds import everything_in
from toy_engines import LAPTOP, ORIN, with_forms, write_engines

from samrt.backends.session import Session, open_onnxruntime
from samrt.bundle.contract import Graph
from samrt.bundle.folder import open_bundle
from samrt.device import driver, gpus
from samrt.engines import plugin
from samrt.engines.builder import bundle as building
from samrt.engines.builder.bundle import BuildRequest, build_bundle
from samrt.engines.builder.engine import BuildOptions, BuiltEngine, build_engine
from samrt.engines.flavours import Flavour
from samrt.engines.manifest import EngineManifest
from samrt.engines.plugin import PLUGIN
from samrt.engines.profiles import BuildLimits, ranges
from samrt.engines.selection import Choice
from samrt.engines.sets import EngineSet, find_engine_sets
from samrt.errors import BackendError, BundleError
from samrt.kernels.library import PLUGIN_VARIABLE
from samrt.progress import SILENT, Lines

pytest_plugins = ("tensorrt_fixtures", "toy_fixtures")
STOCK = BuildRequest("tensorrt", "fp16")
ORIGINAL_NAME = "fp32-dense"


class Registry:
    """TensorRT's, as far as samrt uses it."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def load_library(self, path: str) -> object:
        self.events.append(f"load {Path(path).name}")
        return object()


class Module:
    """A module `tensorrt`."""

    def __init__(self, events: list[str]) -> None:
        self.registry = Registry(events)

    def get_plugin_registry(self) -> Registry:
        return self.registry


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done, in its order, on a machine with a GPU and stock TensorRT, where ONNX Runtime plays the engines."""
    done: list[str] = []
    flavour = Flavour("tensorrt", Module(done), "10.9.0")
    for module in (building, gpus):
        monkeypatch.setattr(module, "find_gpus", lambda: [LAPTOP])
    monkeypatch.setattr(driver, "primary_context", lambda index: nullcontext(done.append(f"test on {index}")))
    monkeypatch.setattr(building, "import_flavour", lambda _: flavour)

    def build(flavour: Flavour, onnx: Path, *others: Any) -> BuiltEngine:
        done.append(f"build {onnx.stem}{' with the plugin' if others[-1] else ''}")
        return BuiltEngine(memoryview(b"plan"), {}, 1.0, (LAPTOP.compute_capability,), ())

    def open_engines(choice: Choice, engines: EngineSet, options: Any) -> Session:
        done.append(f"open {choice.form.name}")
        return open_onnxruntime(open_bundle(engines.folder.parents[2]), choice)

    monkeypatch.setattr(building, "build_in_child", build)
    monkeypatch.setattr(building, "open_engines", open_engines)
    return done


def refused(bundle: Path, said: str, request: BuildRequest = STOCK) -> str:
    """The message of a build that is refused and leaves the bundle as it was."""
    before = everything_in(bundle)
    with pytest.raises(BackendError, match=said) as caught:
        build_bundle(bundle, request)
    assert everything_in(bundle) == before
    return str(caught.value)


# Building


def test_the_kernels_are_tested_and_loaded_before_anything_is_built(
    plugin_bundle: Path, events: list[str], library: Path
) -> None:
    said: list[str] = []
    built = build_bundle(plugin_bundle, STOCK, Lines(said.append))
    assert said[0] == f"testing the kernels in {library} on {LAPTOP.name}"
    builds = ["build encoder with the plugin", "build decoder with the plugin"]
    assert events == ["test on 0", "load libsamrt_plugin.so", *builds, "open fp16-plugin"]
    assert built.plugin == PLUGIN
    assert built.name.endswith("-fp16-plugin")
    assert built.verification is not None
    assert built.verification["reference"] == ORIGINAL_NAME
    (found,) = find_engine_sets(plugin_bundle)
    assert found.manifest == built


def test_other_forms_need_no_library(own_bundle: Path, events: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLUGIN_VARIABLE, "/nowhere")
    built = build_bundle(with_forms(own_bundle, ORIGINAL_NAME, "fp16-augmented"), STOCK)
    assert built.plugin is None
    assert events == ["build encoder", "build decoder", "open fp16-augmented"]


def test_without_the_library(plugin_bundle: Path, events: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLUGIN_VARIABLE, "/nowhere/libsamrt_plugin.so")
    refused(plugin_bundle, r"samrt's TensorRT plugin cannot be used: SAMRT_PLUGIN_LIBRARY names /nowhere/")
    assert events == []


def test_a_library_that_is_no_plugin(
    plugin_bundle: Path, events: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_library(compile_stub(tmp_path, plugin=False), monkeypatch)
    refused(plugin_bundle, "holds kernels and no TensorRT plugin: correct or unset SAMRT_PLUGIN_LIBRARY")
    assert events == []


def test_a_library_of_another_version(
    plugin_bundle: Path, events: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_library(compile_stub(tmp_path, version=PLUGIN.kernels_version + 1), monkeypatch)
    refused(plugin_bundle, rf"is of version {PLUGIN.kernels_version + 1}, and this samrt needs")
    assert events == []


def test_kernels_that_fail_their_own_test(
    plugin_bundle: Path, events: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_library(compile_stub(tmp_path, self_test=3), monkeypatch)
    said = refused(plugin_bundle, r"failed their own test on RTX 4060: .*tile 2 is off by 0\.3")
    assert "it has 87, 89, 110" in said
    assert "lowering=('auto', 'augmented')" in said
    assert events == ["test on 0"]


def test_the_gpu_that_is_built_for_is_the_one_that_is_tested(
    events: list[str], library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtx = Flavour("tensorrt_rtx", Module(events), "1.7.1.116")
    monkeypatch.setattr(plugin, "make_library_name_known", lambda version, path: events.append(f"name {version}"))
    monkeypatch.setattr(gpus, "find_gpus", lambda: [ORIN, replace(LAPTOP, index=1)])
    said: list[str] = []
    plugin.prepare_plugin(rtx, ("8.9",), Lines(said.append))
    assert events == ["test on 1", "name 1.7.1.116", "load libsamrt_plugin.so"]

    monkeypatch.setattr(gpus, "find_gpus", lambda: [ORIN])
    events.clear()
    plugin.prepare_plugin(rtx, ("8.9",), Lines(said.append))
    assert events == ["name 1.7.1.116"], "it is registered already"
    assert "no usable GPU of compute capability 8.9 was found" in said[-1]


def test_without_a_gpu_that_is_said_and_no_kernel_is_run(
    plugin_bundle: Path, events: list[str], library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (building, gpus):
        monkeypatch.setattr(module, "find_gpus", list)
    refused(plugin_bundle, r"TensorRT 10\.9\.0 builds for the GPU at hand, and none was found")
    assert events == []


def test_a_library_without_kernels_for_a_gpu_that_is_built_for(
    plugin_bundle: Path, rtx: Flavour, library: Path
) -> None:
    request = BuildRequest("tensorrt_rtx", "fp16", options=BuildOptions(compute_capabilities=("8.6", "8.9")))
    said = refused(plugin_bundle, "has kernels for 87, 89, 110, which do not run on compute capability 8.6;", request)
    assert "leave it out" in said


@pytest.mark.parametrize("forms", [("fp16-plugin",), ("fp16-plugin", "fp16-dense")])
def test_without_a_form_to_compare_with(own_bundle: Path, events: list[str], forms: tuple[str, ...]) -> None:
    refused(
        with_forms(own_bundle, *forms), r"could not be compared with anything; export .*lowering=\('auto', 'plugin'\)"
    )
    assert events == []


def test_the_node_is_refused_by_name_where_no_plugin_is_loaded(
    rtx: Flavour, small_encoder: Callable[[str], tuple[Path, Graph]]
) -> None:
    """By TensorRT-RTX's own parser: a graph that was built past `build_bundle`."""
    path, graph = small_encoder("plugin")
    options = BuildOptions(compute_capabilities=("8.6",))
    with pytest.raises(
        BackendError, match=r"\(SamrtRelPosAttention\).*samrt's plugin, which has to be loaded"
    ) as caught:
        build_engine(rtx, path, ranges(graph, BuildLimits()), options, SILENT)
    assert "lowering=('auto', 'augmented')" in str(caught.value)


# engine.json


@pytest.fixture
def text(plugin_bundle: Path) -> str:
    return write_engines(plugin_bundle, plugin=PLUGIN).to_json()


def test_engine_json_says_which_plugin(text: str) -> None:
    assert json.loads(text)["plugin"] == {
        "name": "SamrtRelPosAttention",
        "version": "1",
        "kernels_version": PLUGIN.kernels_version,
    }
    assert EngineManifest.from_json(text).plugin == PLUGIN


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("plugin",), "SamrtRelPosAttention", "'plugin' of engine.json must be dict"),
        (("plugin",), {}, "lacks 'name'"),
        (("plugin", "name"), "", "text that is not empty"),
        (("plugin", "version"), 1, "must be str"),
        (("plugin", "kernels_version"), "1", "positive integer"),
    ],
)
def test_wrong_values_are_named(text: str, keys: tuple[str, ...], value: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        EngineManifest.from_json(changed(text, *keys, to=value))
