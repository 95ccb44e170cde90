"""What a bundle's manifest.json says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from samrt.bundle.contract import (
    CHOICES,
    INTERPOLATIONS,
    NORMALIZATIONS,
    RESIZES,
    ROLES,
    Contract,
    Feature,
    Geometry,
    Graph,
    MaskOutputs,
    Normalization,
    Tensor,
)
from samrt.bundle.json_reader import JsonReader, is_number, is_size, is_whole, parse
from samrt.bundle.precisions import PRECISIONS
from samrt.errors import BundleError

FORMAT = "samrt-bundle"
FORMAT_VERSION = 3
MANIFEST_NAME = "manifest.json"

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REMEDY = "export the checkpoint again"


@dataclass(frozen=True)
class FileEntry:
    """Content hash (hexadecimal SHA-256) and size of one file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Base:
    """The checkpoint that a fine-tuning of a part was laid over; `tensors` counts those taken from it."""

    name: str
    sha256: str
    bytes: int
    tensors: int


@dataclass(frozen=True)
class Source:
    """The checkpoint that a bundle was made from; `parameters` counts the model's numbers."""

    name: str
    sha256: str
    bytes: int
    parameters: int
    base: Base | None = None


@dataclass(frozen=True)
class Form:
    """The model's graphs in one precision and one form of the encoder's attention (lowering).

    `verification` is what the comparison with torch measured at export.
    """

    precision: str
    lowering: str
    graphs: Mapping[str, Graph]
    verification: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Unique in a bundle, for example "fp16-augmented"."""
        return f"{self.precision}-{self.lowering}"


@dataclass(frozen=True)
class Manifest:
    """manifest.json; each key is explained in docs/architecture.md."""

    family: str
    variant: str
    geometry: Geometry
    features: tuple[Feature, ...]
    masks: MaskOutputs
    forms: tuple[Form, ...]
    files: Mapping[str, FileEntry]
    source: Source
    exporter: Mapping[str, Any]

    @property
    def contract(self) -> Contract:
        """What the graphs of every form agree on."""
        return Contract(self.geometry, self.features, self.masks)

    @property
    def model_id(self) -> str:
        """Equal for all bundles whose embeddings are interchangeable: one checkpoint, and base, at one input size."""
        base = f"+{self.source.base.sha256[:16]}" if self.source.base else ""
        return f"{self.source.sha256[:16]}{base}@{self.geometry.encoder_side}"

    def form(self, *precisions: str) -> Form | None:
        """The first form in the first of the `precisions` that the bundle has, or None."""
        return next((form for wanted in precisions for form in self.forms if form.precision == wanted), None)

    def files_of(self, form: Form) -> list[str]:
        """The files that this form consists of: x.onnx for each graph, and x.weights where there is one."""
        graphs = [graph.file for graph in form.graphs.values()]
        own = {*graphs, *(f"{file.removesuffix('.onnx')}.weights" for file in graphs)}
        return [name for name in self.files if name in own]

    def to_json(self) -> str:
        """The text of manifest.json.

        Raises:
            BundleError: `from_json` would refuse the text.
        """
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        if self.source.base is None:
            del content["source"]["base"]
        geometry = content["geometry"]
        geometry["normalization"] = {k: v for k, v in geometry["normalization"].items() if v is not None}
        text = json.dumps(content, indent=2) + "\n"
        Manifest.from_json(text)
        return text

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read and check the text of manifest.json. Keys that this version does not know are ignored.

        Raises:
            BundleError: the text is not a manifest, is of another format version, lacks a key, or contradicts the
                graph contract.
        """
        root = _root(text)
        version = root.value("format_version", int)
        if version != FORMAT_VERSION:
            raise BundleError(
                f"the bundle has format version {version}, this samrt reads version {FORMAT_VERSION}; "
                + ("upgrade samrt" if version > FORMAT_VERSION else "export the checkpoint again")
            )
        manifest = cls(
            family=root.text("family"),
            variant=root.text("variant"),
            geometry=_geometry(root.child("geometry")),
            features=tuple(map(_feature, root.list_of_children("features"))),
            masks=_masks(root.child("masks")),
            forms=tuple(map(_form, root.list_of_children("forms"))),
            files={plain_name(name): file_entry(reader) for name, reader in root.children("files")},
            source=_source(root.child("source")),
            exporter=root.value("exporter", dict),
        )
        _check_contract(manifest)
        return manifest


def files_of_any_version(text: bytes) -> dict[str, FileEntry]:
    """A bundle's files, from the manifest of this or an older format version.

    Raises:
        BundleError: the text is not a bundle's manifest.
    """
    return {plain_name(name): file_entry(reader) for name, reader in _root(text).children("files")}


def _root(text: str | bytes) -> JsonReader:
    root = JsonReader(parse(text, MANIFEST_NAME, _REMEDY), "the manifest", _REMEDY)
    if root.value("format", str) != FORMAT:
        raise BundleError(f'{MANIFEST_NAME} is not of a samrt bundle: its "format" is not "{FORMAT}"')
    return root


def _check_contract(manifest: Manifest) -> None:
    contract = manifest.contract
    for problem in contract.problems():
        raise BundleError(f"the manifest's {problem}; {_REMEDY}")
    names = [form.name for form in manifest.forms]
    if not names or len(set(names)) != len(names):
        raise BundleError(
            f"the manifest's forms must be one or several, each once, not [{', '.join(names)}]; {_REMEDY}"
        )
    for form in manifest.forms:
        for role in ROLES:
            if role not in form.graphs:
                raise BundleError(f"the manifest has no graph {role!r} in {form.name}; {_REMEDY}")
        for role, graph in form.graphs.items():
            if graph.file not in manifest.files:
                raise BundleError(f"the manifest's {role} file {graph.file!r} is not among its files; {_REMEDY}")
            if role in ROLES:
                expected = contract.graph(role, graph.file)
                _check_tensors(f"{role} inputs", graph.inputs, expected.inputs)
                _check_tensors(f"{role} outputs", graph.outputs, expected.outputs)


def _check_tensors(what: str, declared: tuple[Tensor, ...], contract: tuple[Tensor, ...]) -> None:
    if sorted(map(_fixed, declared), key=str) != sorted(map(_fixed, contract), key=str):
        raise BundleError(
            f"the manifest's {what} are {[*map(str, declared)]}, the format says {[*map(str, contract)]}; {_REMEDY}"
        )


def _fixed(tensor: Tensor) -> tuple[str, str, tuple[int | None, ...]]:
    # Dynamic axes may carry any name.
    return tensor.name, tensor.dtype, tuple(None if isinstance(n, str) else n for n in tensor.shape)


def _geometry(reader: JsonReader) -> Geometry:
    return Geometry(
        encoder_side=reader.size("encoder_side"),
        prompt_side=reader.size("prompt_side"),
        low_res_side=reader.size("low_res_side"),
        normalization=_normalization(reader.child("normalization")),
        resize=reader.choice("resize", RESIZES),
        interpolation=reader.choice("interpolation", INTERPOLATIONS),
    )


def _feature(reader: JsonReader) -> Feature:
    return Feature(reader.text("name"), tuple(reader.items("shape", is_size, "positive integers")))


def _masks(reader: JsonReader) -> MaskOutputs:
    return MaskOutputs(
        count=reader.size("count"),
        single=reader.whole("single"),
        ambiguous=tuple(reader.items("ambiguous", is_whole, "whole numbers")),
        choice=reader.choice("choice", CHOICES),
        threshold=reader.number("threshold"),
    )


def _normalization(reader: JsonReader) -> Normalization:
    kind = reader.choice("kind", NORMALIZATIONS)
    if kind == "min_max":
        return Normalization(kind)
    mean, std = (reader.items(key, is_number, "three finite numbers") for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise BundleError(f"mean and std of {reader.where} must be three numbers each, std above 0; export again")
    return Normalization(kind, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))


def _form(reader: JsonReader) -> Form:
    return Form(
        precision=reader.choice("precision", tuple(PRECISIONS)),
        lowering=plain_name(reader.text("lowering")),
        graphs={name: read_graph(child) for name, child in reader.children("graphs")},
        verification=reader.value("verification", dict),
    )


def read_graph(reader: JsonReader) -> Graph:
    """`file`, `inputs` and `outputs` of a JSON object."""
    return Graph(
        file=plain_name(reader.text("file")),
        inputs=tuple(_tensor(each) for each in reader.list_of_children("inputs")),
        outputs=tuple(_tensor(each) for each in reader.list_of_children("outputs")),
    )


def _tensor(reader: JsonReader) -> Tensor:
    shape = reader.items("shape", lambda n: isinstance(n, str) or is_size(n), "positive integers or axis names")
    return Tensor(reader.text("name"), reader.text("dtype"), tuple(shape))


def file_entry(reader: JsonReader) -> FileEntry:
    """`sha256` and `bytes` of a JSON object."""
    return FileEntry(sha256=sha256_text(reader), bytes=reader.size("bytes"))


def _source(reader: JsonReader) -> Source:
    return Source(
        name=reader.text("name"),
        sha256=sha256_text(reader),
        bytes=reader.size("bytes"),
        parameters=reader.size("parameters"),
        base=_base(reader.child("base")) if "base" in reader.names() else None,
    )


def _base(reader: JsonReader) -> Base:
    return Base(
        name=reader.text("name"),
        sha256=sha256_text(reader),
        bytes=reader.size("bytes"),
        tensors=reader.size("tensors"),
    )


def sha256_text(reader: JsonReader) -> str:
    """`sha256` of a JSON object, 64 hexadecimal digits."""
    digest = reader.text("sha256")
    if not _SHA256.fullmatch(digest):
        raise BundleError(f"sha256 of {reader.where} is not 64 lower-case hexadecimal digits; {reader.remedy}")
    return digest


def plain_name(name: str, remedy: str = _REMEDY) -> str:
    """A name that stays inside the bundle's folder on every system."""
    if not _PLAIN_NAME.fullmatch(name) or name == MANIFEST_NAME:
        raise BundleError(
            f"{name!r} is no name that samrt gives: only plain names of letters, digits, '.', '_' and '-' are allowed; "
            f"do not use this bundle unless you trust where it came from, and {remedy}"
        )
    return name
