"""What a bundle's manifest.json says, and the graph contract that every bundle obeys."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from samrt.errors import BundleError

FORMAT = "samrt-bundle"
FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PRECISIONS = ("fp32", "fp16")
_NORMALIZATIONS = ("mean_std", "min_max")

T = TypeVar("T")


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
class Manifest:
    """manifest.json; each key is explained in docs/architecture.md."""

    family: str
    variant: str
    image_size: int
    embedding_shape: tuple[int, int, int]
    low_res_size: int
    mask_threshold: float
    normalization: Normalization
    lowering: str
    precision: str
    graphs: Mapping[str, Graph]
    files: Mapping[str, FileEntry]
    source: Source
    exporter: Mapping[str, Any]
    verification: Mapping[str, Any]

    @property
    def model_id(self) -> str:
        """Equal for all bundles whose embeddings are interchangeable: one checkpoint at one input size."""
        return f"{self.source.sha256[:16]}@{self.image_size}"

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
        root = _Reader(data, "the manifest")
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
            lowering=root.text("lowering"),
            precision=root.choice("precision", _PRECISIONS),
            graphs={name: _graph(reader) for name, reader in root.children("graphs")},
            files={_plain_name(name): _file_entry(reader) for name, reader in root.children("files")},
            source=_source(root.child("source")),
            exporter=root.value("exporter", dict),
            verification=root.value("verification", dict),
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
    for name in ("encoder", "decoder"):
        graph = manifest.graphs.get(name)
        if graph is None:
            raise BundleError(f"the manifest has no graph {name!r}; export the checkpoint again")
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


def _embedding_shape(root: _Reader) -> tuple[int, int, int]:
    shape = root.items("embedding_shape", _is_size, "positive integers")
    if len(shape) != 3:
        raise BundleError(f"embedding_shape of the manifest must be [C, h, w], not {shape}; export again")
    return shape[0], shape[1], shape[2]


def _normalization(reader: _Reader) -> Normalization:
    kind = reader.choice("kind", _NORMALIZATIONS)
    if kind == "min_max":
        return Normalization(kind)
    mean, std = (reader.items(key, _is_number, "three finite numbers") for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise BundleError(f"mean and std of {reader.where} must be three numbers each, std above 0; export again")
    return Normalization(kind, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))


def _graph(reader: _Reader) -> Graph:
    return Graph(
        file=_plain_name(reader.text("file")),
        inputs=tuple(_tensor(each) for each in reader.list_of_children("inputs")),
        outputs=tuple(_tensor(each) for each in reader.list_of_children("outputs")),
    )


def _tensor(reader: _Reader) -> Tensor:
    shape = reader.items("shape", lambda n: isinstance(n, str) or _is_size(n), "positive integers or axis names")
    return Tensor(reader.text("name"), reader.text("dtype"), tuple(shape))


def _file_entry(reader: _Reader) -> FileEntry:
    return FileEntry(sha256=_sha256(reader), bytes=reader.size("bytes"))


def _source(reader: _Reader) -> Source:
    return Source(
        name=reader.text("name"),
        sha256=_sha256(reader),
        bytes=reader.size("bytes"),
        parameters=reader.size("parameters"),
    )


def _sha256(reader: _Reader) -> str:
    digest = reader.text("sha256")
    if not _SHA256.fullmatch(digest):
        raise BundleError(f"sha256 of {reader.where} is not 64 lower-case hexadecimal digits; export again")
    return digest


def _plain_name(name: str) -> str:
    """A name that stays inside the bundle's folder on every system."""
    if not _PLAIN_NAME.fullmatch(name) or name == MANIFEST_NAME:
        raise BundleError(
            f"the manifest names a file {name!r}: only plain names of letters, digits, '.', '_' and '-' are allowed; "
            "do not use this bundle unless you trust where it came from, and export it again"
        )
    return name


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) < 2**53  # what a float holds exactly
    return isinstance(value, float) and math.isfinite(value)


class _Reader:
    """One JSON object and where it stands, so that every complaint names its key."""

    def __init__(self, data: object, where: str) -> None:
        if not isinstance(data, dict):
            raise BundleError(f"{where} must be a JSON object, not {type(data).__name__}; export the bundle again")
        self._data: dict[str, Any] = data
        self.where = where

    def raw(self, key: str) -> Any:
        if key not in self._data:
            raise BundleError(f"{self.where} lacks {key!r}; export the checkpoint again")
        return self._data[key]

    def value(self, key: str, kind: type[T]) -> T:
        value = self.raw(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._wrong(key, kind.__name__)
        return value

    def text(self, key: str) -> str:
        if not self.value(key, str):
            raise self._wrong(key, "text that is not empty")
        return self.value(key, str)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        if self.value(key, str) not in choices:
            raise self._wrong(key, f"one of {', '.join(choices)}")
        return self.value(key, str)

    def size(self, key: str) -> int:
        if not _is_size(self.raw(key)):
            raise self._wrong(key, "a positive integer")
        return self.value(key, int)

    def number(self, key: str) -> float:
        value = self.raw(key)
        if not _is_number(value):
            raise self._wrong(key, "a finite number")
        return float(value)

    def items(self, key: str, fits: Callable[[object], bool], kind: str) -> list[Any]:
        values = self.value(key, list)
        if not all(fits(value) for value in values):
            raise self._wrong(key, f"a list of {kind}")
        return values

    def child(self, key: str) -> _Reader:
        return _Reader(self.value(key, dict), f"{key!r} of {self.where}")

    def children(self, key: str) -> list[tuple[str, _Reader]]:
        inner = self.child(key)
        return [(name, _Reader(value, f"{name!r} of {inner.where}")) for name, value in inner._data.items()]

    def list_of_children(self, key: str) -> list[_Reader]:
        return [_Reader(value, f"each of {key!r} of {self.where}") for value in self.value(key, list)]

    def _wrong(self, key: str, expected: str) -> BundleError:
        found = repr(self._data[key])[:80]
        return BundleError(f"{key!r} of {self.where} must be {expected}, not {found}; export the checkpoint again")
