"""Which engines and forms run where samrt's plugin is, where it is not, and what is said of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stub_plugin import use_library
from toy_engines import LAPTOP, MACHINE, with_forms, write_engines

from samrt.bundle.folder import open_bundle
from samrt.cli import main
from samrt.engines import selection
from samrt.engines.flavours import Flavour
from samrt.engines.plugin import PLUGIN
from samrt.engines.selection import choose
from samrt.errors import BackendError, Reason

pytest_plugins = ("toy_fixtures",)


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
def test_engines_whose_plugin_is_not_here_are_skipped(
    plugin_bundle: Path, monkeypatch: pytest.MonkeyPatch, problem: str, changes: dict[str, Any], reason: str
) -> None:
    stock_set(plugin_bundle, **changes)
    machine = replace(MACHINE, problems={"plugin": Reason(problem)} if problem else {})
    monkeypatch.setattr(selection, "this_machine", lambda *_, **__: machine)
    choice = choose(open_bundle(plugin_bundle))
    if reason:
        assert choice.backend == "onnxruntime"
        assert reason in str(choice.skipped[0])
    else:
        assert str(choice) == "tensorrt 10.9.0, fp16-plugin"


def test_engines_of_a_tensorrt_rtx_that_was_not_tried_are_skipped(
    plugin_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock_set(plugin_bundle, backend="tensorrt_rtx", version="1.9.0")
    machine = replace(MACHINE, versions={"tensorrt_rtx": "1.9.0"})
    monkeypatch.setattr(selection, "this_machine", lambda *_, **__: machine)
    choice = choose(open_bundle(plugin_bundle))
    assert "tried with TensorRT-RTX 1.7.1, not with 1.9.0" in str(choice.skipped[0])


def test_the_machine_looks_for_the_plugin_where_tensorrt_is(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "find_gpus", lambda: [LAPTOP])
    monkeypatch.setattr(selection, "installed_flavours", lambda: {"tensorrt": "10.9.0"})
    monkeypatch.setattr(selection, "import_flavour", lambda name: Flavour(name, None, "10.9.0"))
    assert selection.this_machine().problems == {}
    monkeypatch.setattr(selection, "find_gpus", lambda: [replace(LAPTOP, compute_capability="12.0")])
    assert "has kernels for 87, 89, 110, which" in selection.this_machine().problems["plugin"].facts
    use_library(tmp_path / "absent.so", monkeypatch)
    assert re.search(r"absent\.so", selection.this_machine().problems["plugin"].facts)
    monkeypatch.setattr(selection, "find_plugin", lambda: pytest.fail("a named library was loaded"))
    assert "is not loaded here" in selection.this_machine(run_named=False).problems["plugin"].facts
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
    with pytest.raises(BackendError, match=r"holds fp16-plugin only, .*plugin of TensorRT.*'auto', 'plugin'") as caught:
        choose(open_bundle(bundle), backend)
    assert "can run here" not in str(caught.value)
    stock_set(bundle, version="10.3.0")
    monkeypatch.setattr(selection, "this_machine", lambda *_, **__: MACHINE)
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
    monkeypatch.setattr(selection, "this_machine", lambda *_, **__: MACHINE)
    assert main(["info", str(plugin_bundle)]) == 0
    out = capsys.readouterr().out
    assert f"needs {PLUGIN}" in " ".join(out.split())
    assert "here can run" in " ".join(out.split())
