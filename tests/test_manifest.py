"""manifest.json: what is written is read again, and nothing else is accepted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from samrt.errors import BundleError
from samrt.manifest import Manifest, Normalization

pytest_plugins = ("toy_fixtures",)


@pytest.fixture
def text(toy_bundle: Path) -> str:
    return (toy_bundle / "manifest.json").read_text()


def _change(text: str, *keys: Any, to: Any = None, delete: bool = False) -> str:
    data = json.loads(text)
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    if delete:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = to
    return json.dumps(data)


def test_round_trip(text: str) -> None:
    manifest = Manifest.from_json(text)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.image_size == 64
    assert manifest.graphs["decoder"].inputs[2].shape == ("prompts", "points")
    assert manifest.normalization.mean == (123.675, 116.28, 103.53)


def test_round_trip_of_min_max_has_no_mean(text: str) -> None:
    manifest = replace(Manifest.from_json(text), normalization=Normalization("min_max"))
    assert json.loads(manifest.to_json())["normalization"] == {"kind": "min_max"}
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_documented_keys_are_written(text: str) -> None:
    documented = Path(__file__).resolve().parent.parent / "docs" / "architecture.md"
    for key in json.loads(text):
        assert f"`{key}`" in documented.read_text()


def test_model_id_is_of_checkpoint_and_size(text: str) -> None:
    manifest = Manifest.from_json(text)
    assert manifest.model_id == "ab" * 8 + "@64"
    assert replace(manifest, precision="fp16").model_id == manifest.model_id
    assert replace(manifest, image_size=32).model_id != manifest.model_id


def test_unknown_keys_and_axis_names_are_accepted(text: str) -> None:
    manifest = Manifest.from_json(_change(text, "colour", to="blue"))
    assert manifest == Manifest.from_json(text)
    renamed = _change(text, "graphs", "encoder", "inputs", 0, "shape", 0, to="n")
    assert Manifest.from_json(renamed).graphs["encoder"].inputs[0].shape == ("n", 3, 64, 64)


@pytest.mark.parametrize("broken", ["", "{", b"\xff\xfe", "[1]", "null", "[" * 100_000])
def test_what_is_not_a_json_object_is_refused(broken: str | bytes) -> None:
    with pytest.raises(BundleError, match="export"):
        Manifest.from_json(broken)


@pytest.mark.parametrize(("version", "remedy"), [(2, "upgrade samrt"), (0, "export the checkpoint again")])
def test_other_format_versions_are_refused_with_the_remedy(text: str, version: int, remedy: str) -> None:
    with pytest.raises(BundleError, match=f"format version {version}.*reads version 1; {remedy}"):
        Manifest.from_json(_change(text, "format_version", to=version))


def test_every_key_is_required(text: str) -> None:
    for key in json.loads(text):
        with pytest.raises(BundleError, match=f"lacks '{key}'"):
            Manifest.from_json(_change(text, key, delete=True))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("format",), "zip", "not of a samrt bundle"),
        (("image_size",), 64.0, "'image_size' of the manifest must be a positive integer, not 64.0"),
        (("image_size",), True, "positive integer"),
        (("image_size",), 0, "positive integer"),
        (("family",), "", "not empty"),
        (("family",), 3, "must be str"),
        (("embedding_shape",), [8, 16], r"\[C, h, w\]"),
        (("embedding_shape",), [8, 16, "16"], "positive integers"),
        (("embedding_shape",), [8, 16, 32], "four times"),
        (("low_res_size",), 32, "four times"),
        (("mask_threshold",), float("nan"), "finite number"),
        (("mask_threshold",), False, "finite number"),
        (("mask_threshold",), 10**400, "finite number"),
        (("precision",), "int3", "one of fp32, fp16"),
        (("normalization", "kind"), "none", "one of mean_std, min_max"),
        (("normalization", "std"), [1, 0, 1], "std above 0"),
        (("normalization", "mean"), [1, 2], "three numbers"),
        (("normalization", "mean"), [1, 2, float("inf")], "finite numbers"),
        (("graphs",), [], "must be dict"),
        (("graphs", "encoder", "inputs"), {}, "must be list"),
        (("graphs", "encoder", "inputs", 0, "dtype"), "float16", "encoder inputs.*float16.*the format says"),
        (("graphs", "encoder", "inputs", 0, "shape", 0), 1, "encoder inputs"),
        (("graphs", "encoder", "inputs", 0, "shape", 2), 32, "encoder inputs"),
        (("graphs", "encoder", "inputs", 0, "shape", 2), -1, "axis names"),
        (("graphs", "decoder", "outputs", 0, "name"), "masks", "decoder outputs"),
        (("graphs", "decoder", "file"), "other.onnx", "not among its files"),
        (("files", "decoder.onnx", "sha256"), "AB" * 32, "64 lower-case hexadecimal"),
        (("files", "decoder.onnx", "bytes"), -5, "positive integer"),
        (("source", "parameters"), None, "positive integer"),
        (("exporter",), "samrt", "must be dict"),
    ],
)
def test_wrong_values_are_named(text: str, keys: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(_change(text, *keys, to=value))


@pytest.mark.parametrize("name", ["decoder", "encoder"])
def test_both_graphs_are_required(text: str, name: str) -> None:
    with pytest.raises(BundleError, match=f"no graph '{name}'"):
        Manifest.from_json(_change(text, "graphs", name, delete=True))


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", "..", ".hidden", "a\\b", "C:x", "", "manifest.json", "x\n", "a b"]
)
@pytest.mark.parametrize("place", ["files", "graph"])
def test_only_plain_file_names_are_accepted(text: str, name: str, place: str) -> None:
    if place == "files":
        changed = _change(text, "files", name, to={"sha256": "0" * 64, "bytes": 1})
    else:
        changed = _change(text, "graphs", "decoder", "file", to=name)
    with pytest.raises(BundleError, match=r"plain names|not empty"):
        Manifest.from_json(changed)


@pytest.mark.parametrize(
    "spoil", [lambda m: replace(m, low_res_size=1), lambda m: replace(m, files={}), lambda m: replace(m, family="")]
)
def test_what_could_not_be_read_is_not_written(text: str, spoil: Callable[[Manifest], Manifest]) -> None:
    with pytest.raises(BundleError):
        spoil(Manifest.from_json(text)).to_json()
