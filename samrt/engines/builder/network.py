"""From an ONNX file to a TensorRT network, and every complaint of the parser in one message with a remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samrt.bundle.graph_check import PLUGIN_NAME
from samrt.engines.flavours import Flavour
from samrt.engines.plugin import WITHOUT_PLUGIN
from samrt.errors import BackendError, BundleError, Remedy

_WEIGHTS_FILE = re.compile(r"file: (.+?)(?: \(offset=.*)?$")


@dataclass(frozen=True)
class ParsedNetwork:
    """A network, and the parser that owns its weights: TensorRT needs both until the engine is built."""

    network: Any
    parser: Any


def parse(flavour: Flavour, logger: Any, path: Path, builder: Any) -> ParsedNetwork:
    """Read the ONNX file at `path`, and the external weights that it names, into a strongly typed network.

    Raises:
        BackendError: this TensorRT cannot run the graph; each node that it refused is named.
        BundleError: the file or its weights are missing or damaged.
    """
    if not path.is_file():
        raise BundleError(f"there is no file {path}; check the path, or export the checkpoint again")
    trt = flavour.module
    # Strongly typed: the graph alone says what is computed in which precision. TensorRT 11 knows nothing else.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    try:
        parsed = parser.parse_from_file(str(path))
    except TypeError as error:  # the bindings take text that is valid Unicode
        raise BackendError(
            f"{flavour.title} cannot open {str(path)!r}: its name is not Unicode; move the bundle to another folder"
        ) from error
    if not parsed:
        raise _refusal(flavour, logger, path, [parser.get_error(i) for i in range(parser.num_errors)])
    # Some files that are no ONNX at all are taken for an empty graph.
    if network.num_outputs == 0:
        raise BundleError(f"{path} holds no graph; export the checkpoint again")
    return ParsedNetwork(network, parser)


def _refusal(flavour: Flavour, logger: Any, path: Path, errors: list[Any]) -> BackendError | BundleError:
    reasons = list(dict.fromkeys(map(_reason, errors))) or logger.errors or ["it gave no reason"]
    said = f"{flavour.title} cannot read {path}: {'; '.join(reasons)}"
    operators = {error.node_operator() for error in errors} - {""}
    if "Scan" in operators:
        return BackendError(
            f"{said}; the chunked lowering is for ONNX Runtime",
            Remedy("export the checkpoint again with {lowering}", {"lowering": "augmented"}),
        )
    if refused := [line for line in logger.errors if line.startswith(PLUGIN_NAME)]:
        return BackendError(
            f"{said}; {'; '.join(refused)}",
            Remedy(
                "export the checkpoint again with this version of samrt, or with {precisions} and {lowering}",
                WITHOUT_PLUGIN,
            ),
        )
    if PLUGIN_NAME in operators:
        return BackendError(
            f"{said}; {PLUGIN_NAME} is samrt's plugin, which has to be loaded before",
            Remedy(
                "build a bundle of the plugin form with {build_bundle}, which does so, or export the checkpoint with "
                "{precisions} and {lowering}",
                WITHOUT_PLUGIN,
            ),
        )
    if any("initializer" in error.desc() for error in errors):
        files = dict.fromkeys(Path(m[1]).name for m in map(_WEIGHTS_FILE.search, logger.errors) if m)
        named = ", ".join(files) or "the weights file"
        return BundleError(f"{said}; {named} beside it is missing or damaged: copy it again, or export again")
    if operators:
        return BackendError(
            f"{said}; this version cannot run {', '.join(sorted(operators))} there; samrt's graphs need TensorRT 10.3 "
            "or TensorRT-RTX 1.7 or newer",
            Remedy("upgrade it, or export the checkpoint again with {lowering}", {"lowering": "augmented"}),
        )
    return BundleError(f"{said}; the file is damaged, or not of samrt: export the checkpoint again")


def _reason(error: Any) -> str:
    # Where the parser's own check failed, the description is the bare word "false".
    kind = error.code().name.lower().replace("_", " ")
    text = kind if error.desc() in ("", "false") else f"{kind}: {' '.join(error.desc().split())}"
    if not error.node_operator():
        return text
    inside = "".join(f", in {call}" for call in error.local_function_stack())
    return f"node {error.node_name() or error.node()!r} ({error.node_operator()}{inside}): {text}"
