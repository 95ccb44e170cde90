"""Engines in a bundle are read without trust, chosen by what this machine has, and each refusal says what to do."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_json import changed
from PIL import Image
from toy_bundle import rewrite_manifest, write_toy_bundle
from toy_engines import MACHINE, ORIN, write_engines

import samrt
from samrt.bundle.folder import check_replaceable, open_bundle
from samrt.cli import main
from samrt.engines import selection
from samrt.engines.manifest import EngineManifest, platform_name
from samrt.engines.selection import Machine, choose, fit
from samrt.engines.sets import BrokenEngineSet, EngineSet, check_replaceable_set, find_engine_sets, is_engines_folder
from samrt.errors import BackendError, BundleError, OutputError, Reason
from samrt.files import replacing_folder

pytest_plugins = ("toy_fixtures",)


@pytest.fixture
def with_engines(own_bundle: Path) -> Path:
    write_engines(own_bundle)
    return own_bundle


@pytest.fixture
def text(with_engines: Path) -> str:
    (path,) = (with_engines / "engines").glob("*/engine.json")
    return path.read_text()


# engine.json


def test_round_trip(text: str) -> None:
    built = EngineManifest.from_json(text)
    assert EngineManifest.from_json(built.to_json()) == built
    assert built.name == f"tensorrt_rtx-1.7.1-{platform_name()}-sm86_sm89-fp32-dense"
    assert built.engines["mask_decoder"].ranges["point_coords"].minimum == (1, 0, 2)
    assert replace(built, verification=None) == EngineManifest.from_json(replace(built, verification=None).to_json())


def test_every_key_is_required_and_documented(text: str) -> None:
    documented = (Path(__file__).resolve().parents[2] / "docs" / "tensorrt.md").read_text()
    for key in json.loads(text):
        assert f"`{key}`" in documented
        with pytest.raises(BundleError, match=f"lacks '{key}'; delete the folder of these engines and build the"):
            EngineManifest.from_json(changed(text, key, delete=True))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("format",), "samrt-bundle", "not of the format"),
        (("format_version",), 1, "not of the format"),
        (("backend",), "openvino", "one of tensorrt, tensorrt_rtx"),
        (("version",), "../1", "plain names"),
        (("platform",), "linux/x86", "plain names"),
        (("compute_capabilities",), [], "names no compute capability"),
        (("compute_capabilities",), [8.9], "8.7"),
        (("compute_capabilities",), ["../8.9"], "8.7"),
        (("device",), 3, "must be str"),
        (("precision",), "int3", "one of fp32, fp16"),
        (("sources", "decoder.onnx"), 1, "must be str"),
        (("limits", "max_points"), 0, "positive integer"),
        (("limits", "max_points"), 1, "from 2 to 1024, not 1"),
        (("limits", "max_points"), 8, "limits that are not those of its ranges"),
        (("engines",), {}, "names no image_encoder, mask_decoder"),
        (("engines", "image_encoder", "graph", "file"), "../../x.engine", "plain names"),
        (("engines", "image_encoder", "graph", "file"), "engine.json", "not 'image_encoder.engine'"),
        (("engines", "image_encoder", "graph", "file"), "mask_decoder.engine", "not 'image_encoder.engine'"),
        (("engines", "image_encoder", "content", "sha256"), "x", "64 lower-case hexadecimal"),
        (("engines", "image_encoder", "ranges", "image", "maximum"), [1, 3, 64], "does not fit its shape"),
        (("engines", "image_encoder", "ranges", "image", "maximum"), [1, 3, 64, 65], "does not fit its shape"),
        (("engines", "image_encoder", "ranges", "image", "minimum"), [2, 3, 64, 64], "does not fit its shape"),
        (("engines", "image_encoder", "ranges"), {}, "does not fit its shape"),
        (("engines", "image_encoder", "memory", "scratch_bytes"), -1, "whole number"),
        (("engines", "image_encoder", "build_seconds"), float("inf"), "not finite"),
        (("verification",), "fine", "must be dict"),
    ],
)
def test_wrong_values_are_named(text: str, keys: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        EngineManifest.from_json(changed(text, *keys, to=value))
    assert "build the engines again" in str(caught.value) or keys[0] == "engines"


@pytest.mark.parametrize("broken", ["", "{", b"\xff", "[1]", "[" * 100_000])
def test_what_is_not_a_json_object_is_refused(broken: str | bytes) -> None:
    with pytest.raises(BundleError, match="; delete the folder of these engines and build the engines again"):
        EngineManifest.from_json(broken)


# Finding


def test_sets_are_found_best_first(own_bundle: Path) -> None:
    write_engines(own_bundle, compute_capabilities=("8.6",), verification=None)
    write_engines(own_bundle)
    stock = {"backend": "tensorrt", "version": "10.9.0"}
    write_engines(own_bundle, **stock, compute_capabilities=("8.9",), verification=None)
    write_engines(own_bundle, **stock, compute_capabilities=("8.6",))
    write_engines(own_bundle, precision="fp16")
    (own_bundle / "engines" / "broken").mkdir()
    (own_bundle / "engines" / ".half-written").mkdir()
    *whole, broken = find_engine_sets(own_bundle)
    assert isinstance(broken, BrokenEngineSet)
    assert [(each.manifest.backend, each.manifest.precision) for each in whole] == [
        ("tensorrt_rtx", "fp16"),
        ("tensorrt", "fp32"),
        ("tensorrt_rtx", "fp32"),
        ("tensorrt", "fp32"),
        ("tensorrt_rtx", "fp32"),
    ]
    compared = [each.manifest.verification is not None for each in whole]
    assert compared == [True, True, True, False, False]
    assert "engine.json" in str(broken.problem)


def test_a_bundle_without_engines_has_none(own_bundle: Path) -> None:
    assert find_engine_sets(own_bundle) == []


@pytest.mark.parametrize("damage", [b"", b"not really an engine: ENCODER", None])
def test_a_damaged_engine_is_noticed(with_engines: Path, damage: bytes | None) -> None:
    (engines,) = find_engine_sets(with_engines)
    assert isinstance(engines, EngineSet)
    path, _ = engines.verified("image_encoder")
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(BundleError, match=r"encoder\.engine.*delete the folder of these engines and build the"):
        engines.verified("image_encoder")
    assert engines.verified("mask_decoder")[0].exists()


def test_a_bundle_with_engines_may_be_replaced(with_engines: Path) -> None:
    check_replaceable(with_engines, is_engines_folder)
    assert is_engines_folder(with_engines / "engines")


def as_of_an_older_format(engines: Path) -> None:
    manifest = json.loads((engines / "engine.json").read_text())
    manifest["format_version"] = 1
    for role in ("encoder", "decoder"):
        (old,) = engines.glob(f"*_{role}.engine")
        entry = manifest["engines"][role] = manifest["engines"].pop(old.stem)
        entry["graph"]["file"] = old.rename(engines / f"{role}.engine").name
    (engines / "engine.json").write_text(json.dumps(manifest))


def test_nor_do_sets_of_an_older_format(with_engines: Path) -> None:
    (engines,) = (with_engines / "engines").iterdir()
    as_of_an_older_format(engines)
    check_replaceable(with_engines, is_engines_folder)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("name", ["engine.json", "encoder.engine"])
def test_but_files_with_an_engines_name_that_samrt_did_not_build_stay(
    with_engines: Path, name: str, older: bool
) -> None:
    (engines,) = (with_engines / "engines").iterdir()
    if older:
        as_of_an_older_format(engines)
    (own,) = engines.glob(f"*{name}")
    for content in ("mine", "m" * own.stat().st_size):
        own.write_text(content)
        for check in (
            lambda: check_replaceable(with_engines, is_engines_folder),
            lambda: check_replaceable_set(engines),
        ):
            with pytest.raises(OutputError, match=rf"{own.name} is not the file that samrt built, and would be"):
                check()


def test_nor_is_a_bundle_replaced_while_engines_are_built_in_it(with_engines: Path) -> None:
    with (
        replacing_folder(with_engines / "engines" / "tensorrt-10"),
        pytest.raises(OutputError, match="another process builds engines in this bundle; wait for its end"),
    ):
        check_replaceable(with_engines, is_engines_folder)


@pytest.mark.parametrize(
    "place", ["engines/notes.txt", "engines/{set}/notes.txt", "engines/other/x", "engines/.{set}.0a1b2c3d/x"]
)
def test_but_not_with_somebody_elses_files_in_it(with_engines: Path, place: str) -> None:
    (engines,) = (with_engines / "engines").iterdir()
    path = with_engines / place.format(set=engines.name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    named = "/".join(path.relative_to(with_engines).parts[:2])
    with pytest.raises(OutputError, match=f"^{named} is not a set of engines .*; choose another name, or move {named}"):
        check_replaceable(with_engines, is_engines_folder)


# Choosing


def chosen(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, backend: str = "auto") -> selection.Choice:
    monkeypatch.setattr(selection, "this_machine", lambda *_, **__: machine)
    return choose(open_bundle(folder), backend)


def test_auto_takes_engines_that_fit(with_engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = chosen(with_engines, MACHINE, monkeypatch)
    assert (choice.backend, choice.skipped) == ("tensorrt_rtx", ())
    assert str(choice) == "tensorrt_rtx 1.7.1, fp32-dense"
    assert choice.form.name == "fp32-dense"


def test_engines_that_no_gpu_has_run_are_said_to_be_so(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_engines(own_bundle, verification=None)
    assert "not compared with the bundle yet" in str(chosen(own_bundle, MACHINE, monkeypatch))


def test_stock_tensorrt_comes_before_rtx(with_engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_engines(with_engines, backend="tensorrt", version="10.9.0", compute_capabilities=("8.9",))
    assert chosen(with_engines, MACHINE, monkeypatch).backend == "tensorrt"
    assert chosen(with_engines, MACHINE, monkeypatch, "tensorrt_rtx").backend == "tensorrt_rtx"
    newer = replace(MACHINE, versions={**MACHINE.versions, "tensorrt": "10.10.0"})
    choice = chosen(with_engines, newer, monkeypatch)
    assert choice.backend == "tensorrt_rtx"
    assert len(choice.skipped) == 1
    assert "built with tensorrt 10.9.0, here is 10.10.0; build them again" in str(choice.skipped[0])


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (replace(MACHINE, gpu=None), "no NVIDIA GPU can be used here; see `samrt doctor`"),
        (replace(MACHINE, gpu=ORIN), r"built for compute capability 8.6, 8.9, Orin has 8.7; build them again"),
        (replace(MACHINE, versions={}), "needs tensorrt_rtx 1.7.1, which is not installed"),
        (replace(MACHINE, versions={"tensorrt_rtx": "1.8.0"}), "built with tensorrt_rtx 1.7.1, here is 1.8.0"),
        (replace(MACHINE, problems={"tensorrt_rtx": Reason("libfoo is missing")}), "libfoo is missing"),
        (replace(MACHINE, platform="linux_aarch64"), f"built for {platform_name()}, this is linux_aarch64"),
    ],
)
def test_what_does_not_fit_is_skipped_and_said(
    with_engines: Path, monkeypatch: pytest.MonkeyPatch, machine: Machine, reason: str
) -> None:
    choice = chosen(with_engines, machine, monkeypatch)
    assert choice.backend == "onnxruntime"
    assert len(choice.skipped) == 1
    assert reason in str(choice.skipped[0])
    with pytest.raises(BackendError, match=r"no engines of tensorrt_rtx in .* can run here") as caught:
        chosen(with_engines, machine, monkeypatch, "tensorrt_rtx")
    assert reason in str(caught.value)


def test_engines_of_another_precision_are_skipped(with_engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = open_bundle(with_engines).manifest.forms[0]
    rewrite_manifest(with_engines, forms=(form, replace(form, precision="fp16")))
    monkeypatch.setattr(selection, "this_machine", lambda *_, **__: MACHINE)
    choice = choose(open_bundle(with_engines), precision="fp16")
    assert str(choice) == "onnxruntime, fp16-dense"
    assert [reason.facts.partition(": ")[2] for reason in choice.skipped] == ["fp16 was asked for"]


def test_engines_of_other_graphs_are_stale(with_engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = write_toy_bundle(tmp_path / "other", stride=16)
    shutil.copytree(with_engines / "engines", other / "engines")
    choice = chosen(other, MACHINE, monkeypatch)
    assert "built from other graphs than the bundle holds now" in str(choice.skipped[0])


def test_a_set_that_cannot_be_read_is_skipped(with_engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = (with_engines / "engines").glob("*/engine.json")
    path.write_text("{")
    choice = chosen(with_engines, MACHINE, monkeypatch)
    assert choice.backend == "onnxruntime"
    assert "is not JSON" in str(choice.skipped[0])
    path.unlink()
    os.mkfifo(path)
    (reason,) = chosen(with_engines, MACHINE, monkeypatch).skipped
    assert "engine.json: it is a pipe or a device, not a regular file; delete the folder of these" in str(reason)


def test_without_engines_no_gpu_is_looked_for(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: int) -> Machine:
        pytest.fail("looked for a GPU")

    monkeypatch.setattr(selection, "this_machine", never)
    assert choose(open_bundle(own_bundle)).backend == "onnxruntime"
    with pytest.raises(
        BackendError, match=r"holds no engines of tensorrt; build them with samrt\.build_bundle \(backend='tensorrt'\)"
    ):
        choose(open_bundle(own_bundle), "tensorrt")


def test_onnx_runtime_on_request(with_engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(with_engines, MACHINE, monkeypatch, "onnxruntime").engines is None


def test_engines_that_fail_to_open_are_an_error_and_no_fallback(
    with_engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engines say that they fit; what they are made of does not."""
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(selection, "this_machine", lambda *_, **__: MACHINE)
    with pytest.raises(BackendError):
        samrt.load(with_engines)


def test_a_set_that_fits_runs_the_form_it_was_built_from(with_engines: Path) -> None:
    manifest = open_bundle(with_engines).manifest
    (engines,) = find_engine_sets(with_engines)
    assert isinstance(engines, EngineSet)
    assert fit(engines, manifest, MACHINE) == manifest.forms[0]


def test_info_looks_at_the_engines_too(
    with_engines: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "this_machine", lambda *_, **__: MACHINE)
    assert main(["info", str(with_engines)]) == 0
    assert "here can run" in " ".join(capsys.readouterr().out.split())
    (engines,) = (with_engines / "engines").iterdir()
    (engines / "image_encoder.engine").write_text("cut")
    assert main(["info", str(with_engines)]) == 0
    assert "image_encoder.engine is not the file that was built" in capsys.readouterr().out
    assert main(["info", str(with_engines), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["engines"]
    assert (found["name"], found["backend"]) == (engines.name, "tensorrt_rtx")
    assert "is not the file that was built" in found["misfit"]


@pytest.mark.parametrize("command", ["info", "segment"])
def test_a_number_that_makes_no_sense_is_no_obstacle(
    with_engines: Path, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (path,) = (with_engines / "engines").glob("*/engine.json")
    path.write_text(changed(text, "limits", "max_batch", to=65))
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "black.png")
    segment = [
        str(tmp_path / "black.png"),
        "--bundle",
        str(with_engines),
        "--point",
        "3,4",
        "-o",
        str(tmp_path / "o.png"),
    ]
    assert main([command, *(segment if command == "segment" else [str(with_engines)])]) == 0
    out, err = capsys.readouterr()
    assert "max_batch must be a whole number from 1 to 64, not 65" in out + err
