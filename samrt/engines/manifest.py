"""What an engine's engine.json says: what it was built from and for, and how closely it follows the bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from samrt.bundle.contract import ROLES, Graph, Tensor
from samrt.bundle.json_reader import JsonReader, is_size, parse
from samrt.bundle.manifest import FileEntry, file_entry, plain_name, read_graph
from samrt.bundle.precisions import PRECISIONS
from samrt.engines.flavours import FLAVOURS
from samrt.engines.plugin import RequiredPlugin
from samrt.engines.profiles import BuildLimits, Range
from samrt.errors import BundleError, InputError

FORMAT = "samrt-engines"
FORMAT_VERSION = 2
ENGINE_MANIFEST_NAME = "engine.json"

# A build replaces no file that it cannot tell from one of the user's (`samrt.engines.sets.check_replaceable_set`).
REMEDY = "delete the folder of these engines and build the engines again"


@dataclass(frozen=True)
class EngineFile:
    """The engine of one graph.

    Attributes:
        graph: its file, inputs and outputs.
        content: hash and size of the file.
        ranges: smallest, tuned and largest shape of each input.
        memory: bytes that TensorRT reported while building, by what they are for.
        build_seconds: how long the build took.
    """

    graph: Graph
    content: FileEntry
    ranges: Mapping[str, Range]
    memory: Mapping[str, int]
    build_seconds: float


@dataclass(frozen=True)
class EngineManifest:
    """engine.json of one set of engines, an encoder's and a decoder's; each key is explained in docs/tensorrt.md."""

    backend: str
    version: str
    platform: str
    compute_capabilities: tuple[str, ...]
    device: str | None
    precision: str
    lowering: str
    sources: Mapping[str, str]
    limits: BuildLimits
    engines: Mapping[str, EngineFile]
    verification: Mapping[str, Any] | None
    plugin: RequiredPlugin | None = None

    @property
    def name(self) -> str:
        """Of the folder: all that the engines depend on."""
        cards = "_".join(f"sm{capability.replace('.', '')}" for capability in self.compute_capabilities)
        return f"{self.backend}-{self.version}-{self.platform}-{cards}-{self.precision}-{self.lowering}"

    def to_json(self) -> str:
        """The text of engine.json.

        Raises:
            BundleError: `from_json` would refuse the text.
        """
        text = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}, indent=2) + "\n"
        EngineManifest.from_json(text)
        return text

    @classmethod
    def from_json(cls, text: str | bytes) -> EngineManifest:
        """Read and check the text of engine.json. Keys that this version does not know are ignored.

        Raises:
            BundleError: the text is not of this kind or version, lacks a key, or contradicts itself.
        """
        root = _root(text)
        if root.value("format_version", int) != FORMAT_VERSION:
            raise BundleError(f"{ENGINE_MANIFEST_NAME} is not of the format that this samrt writes; {REMEDY}")
        verification = root.raw("verification")
        manifest = cls(
            backend=root.choice("backend", FLAVOURS),
            version=plain_name(root.text("version"), REMEDY),
            platform=plain_name(root.text("platform"), REMEDY),
            compute_capabilities=tuple(root.items("compute_capabilities", _is_capability, 'text such as "8.7"')),
            device=None if root.raw("device") is None else root.text("device"),
            precision=root.choice("precision", tuple(PRECISIONS)),
            lowering=plain_name(root.text("lowering"), REMEDY),
            sources=_texts(root.child("sources")),
            limits=_limits(root.child("limits")),
            engines={name: _engine_file(name, reader) for name, reader in root.children("engines")},
            verification=None if verification is None else root.value("verification", dict),
            plugin=None if root.raw("plugin") is None else _plugin(root.child("plugin")),
        )
        missing = set(ROLES) - manifest.engines.keys()
        if missing or not manifest.compute_capabilities:
            raise BundleError(
                f"{ENGINE_MANIFEST_NAME} names no {', '.join(sorted(missing)) or 'compute capability'}; {REMEDY}"
            )
        _check_limits(manifest)
        return manifest


def platform_name() -> str:
    """This machine's operating system and processor, as engines depend on them: "linux_aarch64"."""
    import platform

    return f"{platform.system()}_{platform.machine()}".lower()


def engine_file_name(role: str) -> str:
    """The file of the engine of a graph, named by its role."""
    return f"{role}.engine"


def engine_files_of_any_version(text: str | bytes) -> dict[str, FileEntry]:
    """The engine files of a set, from the engine.json of this or an older format version.

    Raises:
        BundleError: the text is not an engine.json.
    """
    engines = _root(text).children("engines")
    return {plain_name(one.child("graph").text("file"), REMEDY): file_entry(one.child("content")) for _, one in engines}


def _root(text: str | bytes) -> JsonReader:
    root = JsonReader(parse(text, ENGINE_MANIFEST_NAME, REMEDY), ENGINE_MANIFEST_NAME, REMEDY)
    if root.value("format", str) != FORMAT:
        raise BundleError(f"{ENGINE_MANIFEST_NAME} is not of the format that this samrt writes; {REMEDY}")
    return root


def _check_limits(manifest: EngineManifest) -> None:
    limits = manifest.limits
    largest = {"batch": limits.max_batch, "prompts": limits.max_prompts, "points": limits.max_points}
    for engine in manifest.engines.values():
        for tensor in engine.graph.inputs:
            for axis, length in zip(tensor.shape, engine.ranges[tensor.name].maximum, strict=True):
                if isinstance(axis, str) and largest.get(axis) != length:
                    raise BundleError(
                        f"{ENGINE_MANIFEST_NAME} has limits that are not those of its ranges ({axis}); {REMEDY}"
                    )


def _engine_file(name: str, reader: JsonReader) -> EngineFile:
    graph = read_graph(reader.child("graph"))
    if graph.file != engine_file_name(name):
        raise BundleError(f"the file of {reader.where} is {graph.file!r}, not {engine_file_name(name)!r}; {REMEDY}")
    ranges = {name: _range(child) for name, child in reader.children("ranges")}
    for tensor in graph.inputs:
        if tensor.name not in ranges or not _fits(tensor, ranges[tensor.name]):
            raise BundleError(f"the range of {tensor.name!r} in {reader.where} does not fit its shape; {REMEDY}")
    memory = reader.child("memory")
    return EngineFile(
        graph=graph,
        content=file_entry(reader.child("content")),
        ranges=ranges,
        memory={name: memory.whole(name) for name in memory.names()},
        build_seconds=reader.number("build_seconds"),
    )


def _range(reader: JsonReader) -> Range:
    def shape(key: str) -> tuple[int, ...]:
        return tuple(reader.items(key, lambda n: n == 0 or is_size(n), "whole numbers"))

    return Range(shape("minimum"), shape("optimum"), shape("maximum"))


def _fits(tensor: Tensor, given: Range) -> bool:
    shapes = (given.minimum, given.optimum, given.maximum)
    if any(len(shape) != len(tensor.shape) for shape in shapes):
        return False
    return all(
        low <= tuned <= high and (isinstance(declared, str) or low == high == declared)
        for declared, low, tuned, high in zip(tensor.shape, *shapes, strict=True)
    )


def _limits(reader: JsonReader) -> BuildLimits:
    try:
        return BuildLimits(reader.size("max_batch"), reader.size("max_prompts"), reader.size("max_points"))
    except InputError as error:
        raise BundleError(f"{reader.where}: {error}; {REMEDY}") from error


def _plugin(reader: JsonReader) -> RequiredPlugin:
    return RequiredPlugin(reader.text("name"), reader.text("version"), reader.size("kernels_version"))


def _texts(reader: JsonReader) -> dict[str, str]:
    return {name: reader.text(name) for name in reader.names()}


def _is_capability(value: object) -> bool:
    return isinstance(value, str) and all(part.isdigit() for part in value.split(".")) and value.count(".") == 1
