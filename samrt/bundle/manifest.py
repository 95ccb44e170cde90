"""What a bundle's manifest.json says, and the graph contract that every bundle obeys."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from samrt.bundle.json_reader import JsonReader, is_number, is_size
from samrt.errors import BundleError

FORMAT = "samrt-bundle"
FORMAT_VERSION = 2
MANIFEST_NAME = "manifest.json"

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
PRECISIONS = ("fp32", "fp16")
_NORMALIZATIONS = ("mean_std", "min_max")
_REMEDY = "export the checkpoint again"


@dataclass(frozen=True)
class Tensor:
    """One input or output of a graph; a string in `shape` names a dynamic axis. `dtype` is numpy's name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    """One ONNX file of the bundle and its named inputs and outputs."""

    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class FileEntry:
    """Content hash (hexadecimal SHA-256) and size of one file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Source:
    """The checkpoint that a bundle was made from; `parameters` counts its numbers."""

    name: str
    sha256: str
    bytes: int
    parameters: int


@dataclass(frozen=True)
class Normalization:
    """How RGB pixels in 0..255 become model input.

    `mean_std`: (x - mean) / std per channel. `min_max`: per image to 0..1, without mean and std.
    """

    kind: str
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


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
    image_size: int
    embedding_shape: tuple[int, int, int]
    low_res_size: int
    mask_threshold: float
    normalization: Normalization
    forms: tuple[Form, ...]
    files: Mapping[str, FileEntry]
    source: Source
    exporter: Mapping[str, Any]

    @property
    def model_id(self) -> str:
        """Equal for all bundles whose embeddings are interchangeable: one checkpoint at one input size."""
        return f"{self.source.sha256[:16]}@{self.image_size}"

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
        content["normalization"] = {k: v for k, v in content["normalization"].items() if v is not None}
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
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{MANIFEST_NAME} is not JSON ({error}); export the bundle again") from error
        root = JsonReader(data, "the manifest", _REMEDY)
        if root.value("format", str) != FORMAT:
            raise BundleError(f'{MANIFEST_NAME} is not of a samrt bundle: its "format" is not "{FORMAT}"')
        version = root.value("format_version", int)
        if version != FORMAT_VERSION:
            raise BundleError(
                f"the bundle has format version {version}, this samrt reads version {FORMAT_VERSION}; "
                + ("upgrade samrt" if version > FORMAT_VERSION else "export the checkpoint again")
            )
        manifest = cls(
            family=root.text("family"),
            variant=root.text("variant"),
            image_size=root.size("image_size"),
            embedding_shape=_embedding_shape(root),
            low_res_size=root.size("low_res_size"),
            mask_threshold=root.number("mask_threshold"),
            normalization=_normalization(root.child("normalization")),
            forms=tuple(map(_form, root.list_of_children("forms"))),
            files={plain_name(name): file_entry(reader) for name, reader in root.children("files")},
            source=_source(root.child("source")),
            exporter=root.value("exporter", dict),
        )
        _check_contract(manifest)
        return manifest


def contract_graph(
    name: str, file: str, image_size: int, embedding_shape: tuple[int, int, int], low_res_size: int
) -> Graph:
    """The graph `name` ("encoder" or "decoder") as docs/architecture.md fixes it for every family."""
    S, L = image_size, low_res_size
    if name == "encoder":
        return Graph(
            file,
            inputs=(Tensor("image", "float32", ("batch", 3, S, S)),),
            outputs=(Tensor("image_embeddings", "float32", ("batch", *embedding_shape)),),
        )
    return Graph(
        file,
        inputs=(
            Tensor("image_embeddings", "float32", (1, *embedding_shape)),
            Tensor("point_coords", "float32", ("prompts", "points", 2)),
            Tensor("point_labels", "int32", ("prompts", "points")),
            Tensor("mask_input", "float32", ("prompts", 1, L, L)),
            Tensor("has_mask_input", "float32", ("prompts",)),
        ),
        outputs=(
            Tensor("low_res_masks", "float32", ("prompts", 4, L, L)),
            Tensor("iou_predictions", "float32", ("prompts", 4)),
        ),
    )


def _check_contract(manifest: Manifest) -> None:
    _, height, width = manifest.embedding_shape
    if not 4 * height == 4 * width == manifest.low_res_size:
        raise BundleError(
            f"the manifest's low_res_size {manifest.low_res_size} is not four times the side of its "
            f"embedding_shape {list(manifest.embedding_shape)}; export the checkpoint again"
        )
    names = [form.name for form in manifest.forms]
    if not names or len(set(names)) != len(names):
        raise BundleError(
            f"the manifest's forms must be one or several, each once, not [{', '.join(names)}]; "
            "export the checkpoint again"
        )
    for form, name in product(manifest.forms, ("encoder", "decoder")):
        graph = form.graphs.get(name)
        if graph is None:
            raise BundleError(f"the manifest has no graph {name!r} in {form.name}; export the checkpoint again")
        if graph.file not in manifest.files:
            raise BundleError(f"the manifest's {name} file {graph.file!r} is not among its files; export again")
        contract = contract_graph(
            name, graph.file, manifest.image_size, manifest.embedding_shape, manifest.low_res_size
        )
        _check_tensors(f"{name} inputs", graph.inputs, contract.inputs)
        _check_tensors(f"{name} outputs", graph.outputs, contract.outputs)


def _check_tensors(what: str, declared: tuple[Tensor, ...], contract: tuple[Tensor, ...]) -> None:
    if sorted(map(_fixed, declared), key=str) != sorted(map(_fixed, contract), key=str):
        raise BundleError(
            f"the manifest's {what} are {[_written(t) for t in declared]}, the format says "
            f"{[_written(t) for t in contract]}; export the checkpoint again"
        )


def _fixed(tensor: Tensor) -> tuple[str, str, tuple[int | None, ...]]:
    # Dynamic axes may carry any name.
    return tensor.name, tensor.dtype, tuple(None if isinstance(n, str) else n for n in tensor.shape)


def _written(tensor: Tensor) -> str:
    return f"{tensor.name}: {tensor.dtype}[{', '.join(map(str, tensor.shape))}]"


def _embedding_shape(root: JsonReader) -> tuple[int, int, int]:
    shape = root.items("embedding_shape", is_size, "positive integers")
    if len(shape) != 3:
        raise BundleError(f"embedding_shape of the manifest must be [C, h, w], not {shape}; export again")
    return shape[0], shape[1], shape[2]


def _normalization(reader: JsonReader) -> Normalization:
    kind = reader.choice("kind", _NORMALIZATIONS)
    if kind == "min_max":
        return Normalization(kind)
    mean, std = (reader.items(key, is_number, "three finite numbers") for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise BundleError(f"mean and std of {reader.where} must be three numbers each, std above 0; export again")
    return Normalization(kind, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))


def _form(reader: JsonReader) -> Form:
    return Form(
        precision=reader.choice("precision", PRECISIONS),
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
