"""A form of a model: its two graphs in one precision and lowering, written to files, and the manifest around them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from samrt.bundle.manifest import MANIFEST_NAME, FileEntry, Form, Graph, Manifest, Source, contract_graph
from samrt.files import sha256_of
from samrt_export.families import LoadedModel
from samrt_export.lowering import lower
from samrt_export.models.sam import DecoderGraph, EncoderGraph
from samrt_export.onnx_export import OPSET, export_graph

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def form_of(loaded: LoadedModel, precision: str, lowering: str) -> Form:
    """What a form consists of. Lowerings of one precision share the decoder, as they differ in the encoder only."""
    sizes = loaded.image_size, loaded.embedding_shape, loaded.low_res_size
    files = {"encoder": f"encoder.{precision}-{lowering}.onnx", "decoder": f"decoder.{precision}.onnx"}
    graphs = {name: contract_graph(name, file, *sizes) for name, file in files.items()}
    return Form(precision, lowering, graphs, verification={})


def export_encoder(loaded: LoadedModel, form: Form, folder: Path) -> nn.Module:
    """Trace the encoder into `folder`; returns the module. The model's attention and number format are changed."""
    graph = form.graphs["encoder"]
    lower(loaded.sam.image_encoder, form.lowering)
    encoder = EncoderGraph(loaded.sam, DTYPES[form.precision])
    # Two of everything: a dynamic axis of length 1 in a sample would be fixed.
    image = torch.zeros(2, 3, loaded.image_size, loaded.image_size)
    export_graph(encoder, graph, (image,), folder, weights_name(graph))
    return encoder


def export_decoder(loaded: LoadedModel, form: Form, folder: Path) -> nn.Module:
    """Trace the decoder into `folder`; returns the module. The model's number format is changed."""
    side = loaded.low_res_size
    decoder = DecoderGraph(loaded.sam, DTYPES[form.precision])
    samples = (
        torch.zeros(1, *loaded.embedding_shape),
        torch.zeros(2, 3, 2),
        torch.zeros(2, 3, dtype=torch.int32),
        torch.zeros(2, 1, side, side),
        torch.zeros(2),
    )
    export_graph(decoder, form.graphs["decoder"], samples, folder)
    return decoder


def weights_name(graph: Graph) -> str:
    """The file of a graph's external weights."""
    return graph.file.removesuffix(".onnx") + ".weights"


def describe(folder: Path, loaded: LoadedModel, source: Source, forms: Sequence[Form]) -> Manifest:
    """The manifest of the files in `folder`."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST_NAME)
    return Manifest(
        family=loaded.family,
        variant=loaded.variant,
        image_size=loaded.image_size,
        embedding_shape=loaded.embedding_shape,
        low_res_size=loaded.low_res_size,
        mask_threshold=0.0,
        normalization=loaded.normalization,
        forms=tuple(forms),
        files={path.name: FileEntry(sha256_of(path), path.stat().st_size) for path in files},
        source=source,
        exporter={"opset": OPSET, **{name: version(name) for name in ("samrt", "torch", "onnx", "onnxscript")}},
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json."""
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
