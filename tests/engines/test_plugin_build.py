"""`samrt build` of a form with samrt's plugin, and what becomes of it where it cannot be built or run.

There is no stock TensorRT here: its part is played by a registry and by ONNX Runtime, the library's by a stub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_json import changed
from PIL import Image
from stub_plugin import compile_stub
from toy_builds import everything_in
from toy_bundle import rewrite_manifest
from toy_engines import LAPTOP, MACHINE, ORIN, write_engines

from samrt.backends.session import Session, open_onnxruntime
from samrt.bundle.folder import open_bundle
from samrt.bundle.manifest import Graph
from samrt.cli import main
from samrt.device import cuda
from samrt.engines import plugin, selection
from samrt.engines.builder import bundle as building
from samrt.engines.builder.bundle import BuildRequest, build_bundle
from samrt.engines.builder.engine import BuildOptions, BuiltEngine, build_engine
from samrt.engines.flavours import Flavour
from samrt.engines.manifest import EngineManifest
from samrt.engines.plugin import PLUGIN
from samrt.engines.profiles import Limits, ranges
from samrt.engines.selection import Choice, choose
from samrt.engines.sets import find_engine_sets
from samrt.errors import BackendError, BundleError
from samrt.kernels.library import PLUGIN_VARIABLE

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


def with_forms(bundle: Path, *names: str) -> Path:
    """The bundle with forms of these names ("fp16-plugin") in place of its own, all of the same files."""
    form = open_bundle(bundle).manifest.forms[0]
    pairs = [name.split("-") for name in names]
    rewrite_manifest(bundle, forms=tuple(replace(form, precision=p, lowering=kind) for p, kind in pairs))
    return bundle


@pytest.fixture
def plugin_bundle(own_bundle: Path) -> Path:
    return with_forms(own_bundle, ORIGINAL_NAME, "fp16-plugin")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done, in its order, on a machine with a GPU and stock TensorRT, where ONNX Runtime plays the engines."""
    done: list[str] = []
    flavour = Flavour("tensorrt", Module(done), "10.9.0")
    for module in (building, cuda):
        monkeypatch.setattr(module, "find_gpus", lambda: [LAPTOP])
    monkeypatch.setattr(cuda, "primary_context", lambda index: nullcontext(done.append(f"test on {index}")))
    monkeypatch.setattr(building, "import_flavour", lambda _: flavour)

    def build(flavour: Flavour, onnx: Path, *_: Any) -> BuiltEngine:
        done.append(f"build {onnx.stem}")
        return BuiltEngine(memoryview(b"plan"), {}, 1.0, (LAPTOP.compute_capability,), ())

    def open_engines(choice: Choice, options: Any) -> Session:
        assert choice.engines is not None
        done.append(f"open {choice.form.name}")
        return open_onnxruntime(open_bundle(choice.engines.folder.parent.parent), choice)

    monkeypatch.setattr(building, "build_engine", build)
    monkeypatch.setattr(building, "open_engines", open_engines)
    return done


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_library(compile_stub(tmp_path), monkeypatch)


def use_library(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(PLUGIN_VARIABLE, str(path))
    return path


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
    built = build_bundle(plugin_bundle, STOCK, said.append)
    assert said[0] == f"testing the kernels in {library} on {LAPTOP.name}"
    assert events == ["test on 0", "load libsamrt_plugin.so", "build encoder", "build decoder", "open fp16-plugin"]
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
    assert "--lowering auto,augmented" in said
    assert events == ["test on 0"]


def test_the_gpu_that_is_built_for_is_the_one_that_is_tested(
    events: list[str], library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtx = Flavour("tensorrt_rtx", Module(events), "1.7.1.116")
    monkeypatch.setattr(plugin, "make_library_name_known", lambda version, path: events.append(f"name {version}"))
    monkeypatch.setattr(cuda, "find_gpus", lambda: [ORIN, replace(LAPTOP, index=1)])
    said: list[str] = []
    plugin.prepare_plugin(rtx, ("8.9",), said.append)
    assert events == ["test on 1", "name 1.7.1.116", "load libsamrt_plugin.so"]

    monkeypatch.setattr(cuda, "find_gpus", lambda: [ORIN])
    events.clear()
    plugin.prepare_plugin(rtx, ("8.9",), said.append)
    assert events == ["name 1.7.1.116"], "it is registered already"
    assert "no usable GPU of compute capability 8.9 was found" in said[-1]


def test_without_a_gpu_that_is_said_and_no_kernel_is_run(
    plugin_bundle: Path, events: list[str], library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (building, cuda):
        monkeypatch.setattr(module, "find_gpus", list)
    refused(plugin_bundle, r"TensorRT 10\.9\.0 builds for the GPU at hand, and none was found")
    assert events == []


def test_a_library_without_kernels_for_a_gpu_that_is_built_for(
    plugin_bundle: Path, rtx: Flavour, library: Path
) -> None:
    request = BuildRequest("tensorrt_rtx", "fp16", options=BuildOptions(compute_capabilities=("8.6", "8.9")))
    said = refused(plugin_bundle, "has kernels for 87, 89, 110, which do not run on compute capability 8.6:", request)
    assert "leave it out" in said


@pytest.mark.parametrize("forms", [("fp16-plugin",), ("fp16-plugin", "fp16-dense")])
def test_without_a_form_to_compare_with(own_bundle: Path, events: list[str], forms: tuple[str, ...]) -> None:
    refused(with_forms(own_bundle, *forms), r"could not be compared with anything; export .*--lowering auto,plugin")
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
        build_engine(rtx, path, ranges(graph, Limits()), options, lambda _: None)
    assert "--lowering auto,augmented" in str(caught.value)


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


# Running


def stock_set(bundle: Path, **changes: Any) -> None:
    form = open_bundle(bundle).manifest.forms[-1]
    stock = {"backend": "tensorrt", "version": "10.9.0", "compute_capabilities": ("8.9",), "plugin": PLUGIN}
    write_engines(bundle, **{**stock, "precision": form.precision, "lowering": form.lowering, **changes})


@pytest.mark.parametrize(
    ("problem", "changes", "reason"),
    [
        ("", {}, ""),
        ("no library", {}, "no library"),
        ("no library", {"plugin": None}, ""),
        ("", {"plugin": replace(PLUGIN, kernels_version=99)}, "with kernels of version 99, this samrt has"),
        ("", {"plugin": replace(PLUGIN, version="2")}, "built with plugin SamrtRelPosAttention 2 with"),
    ],
)
def test_engines_whose_plugin_is_not_here_are_passed_over(
    plugin_bundle: Path, monkeypatch: pytest.MonkeyPatch, problem: str, changes: dict[str, Any], reason: str
) -> None:
    stock_set(plugin_bundle, **changes)
    machine = replace(MACHINE, problems={"plugin": problem} if problem else {})
    monkeypatch.setattr(selection, "this_machine", lambda _: machine)
    choice = choose(open_bundle(plugin_bundle))
    if reason:
        assert choice.backend == "onnxruntime"
        assert reason in choice.passed_over[0]
    else:
        assert str(choice) == "tensorrt 10.9.0, fp16-plugin"


def test_engines_of_a_tensorrt_rtx_that_was_not_tried_are_passed_over(
    plugin_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock_set(plugin_bundle, backend="tensorrt_rtx", version="1.9.0")
    machine = replace(MACHINE, versions={"tensorrt_rtx": "1.9.0"})
    monkeypatch.setattr(selection, "this_machine", lambda _: machine)
    choice = choose(open_bundle(plugin_bundle))
    assert "tried with TensorRT-RTX 1.7.1, not with 1.9.0" in choice.passed_over[0]


def test_the_machine_looks_for_the_plugin_where_tensorrt_is(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "find_gpus", lambda: [LAPTOP])
    monkeypatch.setattr(selection, "installed_flavours", lambda: {"tensorrt": "10.9.0"})
    monkeypatch.setattr(selection, "import_flavour", lambda name: Flavour(name, None, "10.9.0"))
    assert selection.this_machine().problems == {}
    monkeypatch.setattr(selection, "find_gpus", lambda: [replace(LAPTOP, compute_capability="12.0")])
    assert "has kernels for 87, 89, 110, which" in selection.this_machine().problems["plugin"]
    use_library(tmp_path / "absent.so", monkeypatch)
    assert re.search(r"absent\.so", selection.this_machine().problems["plugin"])
    monkeypatch.setattr(selection, "installed_flavours", dict)
    assert selection.this_machine().problems == {}


@pytest.mark.parametrize(
    ("forms", "taken"),
    [
        (("fp16-plugin", "fp16-dense"), "fp16-dense"),
        (("fp16-plugin", "fp32-dense"), "fp32-dense"),
        (("fp16-plugin", "fp16-augmented", "fp32-chunked"), "fp32-chunked"),
    ],
)
def test_onnx_runtime_runs_another_form(own_bundle: Path, forms: tuple[str, ...], taken: str) -> None:
    bundle = open_bundle(with_forms(own_bundle, *forms))
    for backend in ("auto", "onnxruntime"):
        assert str(choose(bundle, backend)) == f"onnxruntime, {taken}"


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_a_bundle_with_nothing_for_onnx_runtime(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    bundle = with_forms(own_bundle, "fp16-plugin")
    with pytest.raises(BackendError, match=r"holds fp16-plugin only, .*plugin of TensorRT.*auto,plugin") as caught:
        choose(open_bundle(bundle), backend)
    assert "can run here" not in str(caught.value)
    stock_set(bundle, version="10.3.0")
    monkeypatch.setattr(selection, "this_machine", lambda _: MACHINE)
    with pytest.raises(BackendError) as caught:
        choose(open_bundle(bundle), backend)
    assert ("built with tensorrt 10.3.0, here is 10.9.0" in str(caught.value)) == (backend == "auto")


def test_the_command_says_it_in_one_line(own_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = with_forms(own_bundle, "fp16-plugin")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(bundle / "black.png")
    assert main(["segment", str(bundle / "black.png"), "--bundle", str(bundle), "--point", "1,1"]) == 1
    assert re.fullmatch(r"samrt: error: .*fp16-plugin only.*\n", capsys.readouterr().err)


def test_info_names_the_plugin(
    plugin_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stock_set(plugin_bundle)
    monkeypatch.setattr(selection, "this_machine", lambda *_: MACHINE)
    assert main(["info", str(plugin_bundle)]) == 0
    out = capsys.readouterr().out
    assert f"needs     {PLUGIN}" in out
    assert "here      can run" in out
