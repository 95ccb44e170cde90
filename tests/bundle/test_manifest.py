"""manifest.json: what is written is read again, and nothing else is accepted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from changed_json import changed

from samrt.bundle.contract import Normalization
from samrt.bundle.manifest import Manifest
from samrt.errors import BundleError

pytest_plugins = ("toy_fixtures",)


@pytest.fixture
def text(toy_bundle: Path) -> str:
    return (toy_bundle / "manifest.json").read_text()


# The one form of the toy bundle.
FORM = ("forms", 0)
SIDE, NORMALIZATION = ("geometry", "encoder_side"), ("geometry", "normalization")


def test_round_trip(text: str) -> None:
    manifest = Manifest.from_json(text)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.geometry.encoder_side == 64
    assert manifest.forms[0].graphs["mask_decoder"].inputs[2].shape == ("prompts", "points")
    assert manifest.geometry.normalization.mean == (123.675, 116.28, 103.53)


def test_round_trip_of_min_max_has_no_mean(text: str) -> None:
    manifest = Manifest.from_json(text)
    manifest = replace(manifest, geometry=replace(manifest.geometry, normalization=Normalization("min_max")))
    assert json.loads(manifest.to_json())["geometry"]["normalization"] == {"kind": "min_max"}
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_documented_keys_are_written(text: str) -> None:
    documented = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
    for key in json.loads(text):
        assert f"`{key}`" in documented.read_text()


@pytest.mark.parametrize("part", ["geometry", "masks"])
def test_every_key_of_the_contract_is_required_and_documented(text: str, part: str) -> None:
    documented = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
    for key in json.loads(text)[part]:
        assert f"`{key}`" in documented.read_text()
        with pytest.raises(BundleError, match=f"lacks '{key}'"):
            Manifest.from_json(changed(text, part, key, delete=True))


def test_graphs_of_other_roles_are_kept(text: str) -> None:
    manifest = Manifest.from_json(text)
    (form,) = manifest.forms
    graphs = {**form.graphs, "memory_encoder": form.graphs["mask_decoder"]}
    read = Manifest.from_json(replace(manifest, forms=(replace(form, graphs=graphs),)).to_json())
    assert read.forms[0].graphs["memory_encoder"] == form.graphs["mask_decoder"]


def test_every_key_of_a_form_is_required_and_documented(text: str) -> None:
    documented = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
    for key in json.loads(text)["forms"][0]:
        assert f"`{key}`" in documented.read_text()
        with pytest.raises(BundleError, match=f"lacks '{key}'"):
            Manifest.from_json(changed(text, *FORM, key, delete=True))


def test_forms_are_told_apart_by_precision_and_lowering(text: str) -> None:
    manifest = Manifest.from_json(text)
    full = manifest.forms[0]
    half = replace(full, precision="fp16", lowering="augmented")
    both = replace(manifest, forms=(full, half))
    assert [form.name for form in Manifest.from_json(both.to_json()).forms] == ["fp32-dense", "fp16-augmented"]
    assert both.form("fp16", "fp32") == half
    assert both.form("fp32", "fp16") == full
    assert manifest.form("fp16") is None
    with pytest.raises(BundleError, match="each once"):
        replace(manifest, forms=(full, full)).to_json()


def test_a_form_consists_of_its_graphs_and_their_weights(text: str) -> None:
    manifest = Manifest.from_json(text)
    assert manifest.files_of(manifest.forms[0]) == ["encoder.onnx", "encoder.weights", "decoder.onnx"]
    full = manifest.forms[0]
    graphs = {
        role: replace(graph, file=graph.file.replace(".onnx", ".fp16.onnx")) for role, graph in full.graphs.items()
    }
    half = replace(full, precision="fp16", graphs=graphs)
    entry = manifest.files["encoder.onnx"]
    files = {**manifest.files, "encoder.fp16.onnx": entry, "encoder.fp16.weights": entry, "decoder.fp16.onnx": entry}
    both = replace(manifest, forms=(full, half), files=files)
    assert both.files_of(half) == ["encoder.fp16.onnx", "encoder.fp16.weights", "decoder.fp16.onnx"]


def test_model_id_is_of_checkpoint_and_size(text: str) -> None:
    manifest = Manifest.from_json(text)
    assert manifest.model_id == "ab" * 8 + "@64"
    assert replace(manifest, forms=(replace(manifest.forms[0], precision="fp16"),)).model_id == manifest.model_id
    smaller = replace(manifest.geometry, encoder_side=32)
    assert replace(manifest, geometry=smaller).model_id != manifest.model_id


def test_unknown_keys_and_axis_names_are_accepted(text: str) -> None:
    manifest = Manifest.from_json(changed(text, "colour", to="blue"))
    assert manifest == Manifest.from_json(text)
    renamed = changed(text, *FORM, "graphs", "image_encoder", "inputs", 0, "shape", 0, to="n")
    assert Manifest.from_json(renamed).forms[0].graphs["image_encoder"].inputs[0].shape == ("n", 3, 64, 64)


@pytest.mark.parametrize("broken", ["", "{", b"\xff\xfe", "[1]", "null", "[" * 100_000])
def test_what_is_not_a_json_object_is_refused(broken: str | bytes) -> None:
    with pytest.raises(BundleError, match="export"):
        Manifest.from_json(broken)


@pytest.mark.parametrize(("version", "remedy"), [(4, "upgrade samrt"), (2, "export the checkpoint again")])
def test_other_format_versions_are_refused_with_the_remedy(text: str, version: int, remedy: str) -> None:
    with pytest.raises(BundleError, match=f"format version {version}.*reads version 3; {remedy}"):
        Manifest.from_json(changed(text, "format_version", to=version))


def test_every_key_is_required(text: str) -> None:
    for key in json.loads(text):
        with pytest.raises(BundleError, match=f"lacks '{key}'"):
            Manifest.from_json(changed(text, key, delete=True))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("format",), "zip", "not of a samrt bundle"),
        (SIDE, 64.0, "'encoder_side' of 'geometry' of the manifest must be a positive integer, not 64.0"),
        (SIDE, True, "positive integer"),
        (SIDE, 0, "positive integer"),
        (("geometry", "resize"), "crop", "one of longest_side, square"),
        (("geometry", "interpolation"), "nearest", "one of bilinear_antialiased"),
        (("geometry", "prompt_side"), None, "positive integer"),
        (("geometry", "prompt_side"), 100_000, "sides of at most 8192 pixels, not 64, 100000, 64"),
        (("family",), "", "not empty"),
        (("family",), 3, "must be str"),
        (("features", 0, "shape"), [8, 16, "16"], "positive integers"),
        (("features", 0, "shape"), [8, 16, 32], "encoder outputs"),
        (("features", 0, "name"), "point_coords", "each of a name of its own"),
        (("features", 0, "name"), "low_res_masks", "each of a name of its own"),
        (("features",), [], "one or several"),
        (("geometry", "low_res_side"), 32, "decoder inputs"),
        (("masks", "count"), 5, "decoder outputs"),
        (("masks", "single"), 4, "below their count of 4"),
        (("masks", "single"), -1, "whole number"),
        (("masks", "ambiguous"), [1, 2, 4], "below their count of 4"),
        (("masks", "ambiguous"), [], "below their count of 4"),
        (("masks", "ambiguous"), [1, 1], "below their count of 4"),
        (("masks", "choice"), "best", "one of token, predicted_iou, stability, hq"),
        (("masks", "threshold"), float("nan"), "not finite"),
        (("masks", "threshold"), False, "finite number"),
        (("masks", "threshold"), 10**400, "more than 64 bits"),
        ((*FORM, "precision"), "int3", "one of fp32, fp16"),
        ((*NORMALIZATION, "kind"), "none", "one of mean_std, min_max"),
        ((*NORMALIZATION, "std"), [1, 0, 1], "std above 0"),
        ((*NORMALIZATION, "std"), [1, 1e-320, 1], r"a std from 1e-06 to 1e\+06, not \(1, 1e-320, 1\)"),
        ((*NORMALIZATION, "std"), [1, 1e308, 1], "a std from"),
        ((*NORMALIZATION, "mean"), [1, -1e308, 1], "at most 1e.06 from 0"),
        (("masks", "threshold"), 1e300, "at most 1e.06 from 0"),
        (("features", 0, "shape"), [10**9, 1, 1], r"at most 268,435,456 numbers together, not \[1000000000, 1, 1\]"),
        (("features", 0, "shape"), [2] * 100, "at most 7 axes each"),
        (("masks", "count"), 10**9, "at most 268,435,456 numbers together, not 1000000000 of 64 x 64"),
        (("geometry", "low_res_side"), 10**9, "sides of at most 8192"),
        (("exporter",), {"samrt": float("inf")}, "a number that is not finite"),
        (("unknown",), [{"a": float("nan")}], "a number that is not finite"),
        ((*NORMALIZATION, "mean"), [1, 2], "three numbers"),
        ((*NORMALIZATION, "mean"), [1, 2, float("inf")], "not finite"),
        (
            (
                *FORM,
                "graphs",
            ),
            [],
            "must be dict",
        ),
        ((*FORM, "graphs", "image_encoder", "inputs"), {}, "must be list"),
        (
            (*FORM, "graphs", "image_encoder", "inputs", 0, "dtype"),
            "float16",
            "encoder inputs.*float16.*format says",
        ),
        ((*FORM, "graphs", "image_encoder", "inputs", 0, "shape", 0), 1, "image_encoder inputs"),
        ((*FORM, "graphs", "image_encoder", "inputs", 0, "shape", 2), 32, "image_encoder inputs"),
        ((*FORM, "graphs", "image_encoder", "inputs", 0, "shape", 2), -1, "axis names"),
        ((*FORM, "graphs", "mask_decoder", "outputs", 0, "name"), "masks", "mask_decoder outputs"),
        ((*FORM, "graphs", "mask_decoder", "file"), "other.onnx", "not among its files"),
        (("forms",), [], "one or several, each once"),
        ((*FORM, "lowering"), "../x", "plain names"),
        (("files", "decoder.onnx", "sha256"), "AB" * 32, "64 lower-case hexadecimal"),
        (("files", "decoder.onnx", "bytes"), -5, "positive integer"),
        (("source", "parameters"), None, "positive integer"),
        (("exporter",), "samrt", "must be dict"),
    ],
)
def test_wrong_values_are_named(text: str, keys: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(changed(text, *keys, to=value))


@pytest.mark.parametrize("name", ["mask_decoder", "image_encoder"])
def test_both_graphs_are_required(text: str, name: str) -> None:
    with pytest.raises(BundleError, match=f"no graph '{name}'"):
        Manifest.from_json(changed(text, *FORM, "graphs", name, delete=True))


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", "..", ".hidden", "a\\b", "C:x", "", "manifest.json", "x\n", "a b"]
)
@pytest.mark.parametrize("place", ["files", "graph"])
def test_only_plain_file_names_are_accepted(text: str, name: str, place: str) -> None:
    if place == "files":
        renamed = changed(text, "files", name, to={"sha256": "0" * 64, "bytes": 1})
    else:
        renamed = changed(text, *FORM, "graphs", "mask_decoder", "file", to=name)
    with pytest.raises(BundleError, match=r"plain names|not empty"):
        Manifest.from_json(renamed)


@pytest.mark.parametrize(
    "spoil", [lambda m: replace(m, features=()), lambda m: replace(m, files={}), lambda m: replace(m, family="")]
)
def test_what_could_not_be_read_is_not_written(text: str, spoil: Callable[[Manifest], Manifest]) -> None:
    with pytest.raises(BundleError):
        spoil(Manifest.from_json(text)).to_json()


def _nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = {"a": [value]}
    return value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("source", "parameters"), 10**400, "more than 64 bits"),
        (("source", "bytes"), -(10**400), "more than 64 bits"),
        (("exporter",), {"samrt": 10**400}, "more than 64 bits"),
        (("exporter",), _nested(200), "nested more than 64 deep"),
        (("unknown",), _nested(200), "nested more than 64 deep"),
        (("variant",), "a\ud800", r"text that is not Unicode, 'a\\ud800'"),
        (("source", "name"), "\udfff.pth", "text that is not Unicode"),
        (("exporter",), {"\ud800": "1"}, "text that is not Unicode"),
    ],
)
def test_values_that_nothing_has_room_for_are_refused(
    toy_bundle: Path, path: tuple[str, ...], value: object, message: str
) -> None:
    content = json.loads((toy_bundle / "manifest.json").read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(json.dumps(content))


@pytest.mark.parametrize("text", [b'{"format": "\xff"}', b"[" * 10**5, b'{"format_version": ' + b"9" * 5000 + b"}"])
def test_bytes_that_are_no_json_are_refused(text: bytes) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json is not JSON"):
        Manifest.from_json(text)


def test_a_checkpoint_whose_name_is_not_utf_8_is_no_reason(toy_bundle: Path) -> None:
    text = (toy_bundle / "manifest.json").read_text().replace('"toy.pth"', '"\\udcff.pth"')
    assert Manifest.from_json(text).source.name == "\udcff.pth"
