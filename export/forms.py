"""A form of a model: its two graphs in one precision and lowering, written to files, and the manifest around them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from samrt.bundle.contract import IMAGE_ENCODER, MASK_DECODER, Graph
from samrt.bundle.manifest import MANIFEST_NAME, FileEntry, Form, Manifest, Source
from samrt.files import sha256_of
from samrt_export.families import LoadedModel
from samrt_export.lowering import lower
from samrt_export.onnx_export import OPSET, export_graph

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def form_of(loaded: LoadedModel, precision: str, lowering: str) -> Form:
    """What a form consists of. Lowerings of one precision share the decoder, as they differ in the encoder only."""
    encoder, decoder = f"{IMAGE_ENCODER}.{precision}-{lowering}.onnx", f"{MASK_DECODER}.{precision}.onnx"
    contract = loaded.contract
    graphs = {IMAGE_ENCODER: contract.image_encoder(encoder), MASK_DECODER: contract.mask_decoder(decoder)}
    return Form(precision, lowering, graphs, verification={})


def export_encoder(loaded: LoadedModel, form: Form, folder: Path) -> nn.Module:
    """Trace the encoder into `folder`; returns the module. The model's attention and number format are changed."""
    graph = form.graphs[IMAGE_ENCODER]
    lower(loaded.sam.image_encoder, form.lowering)
    encoder = loaded.module(IMAGE_ENCODER, DTYPES[form.precision])
    export_graph(encoder, graph, _samples(graph), folder, weights_name(graph))
    return encoder


def export_decoder(loaded: LoadedModel, form: Form, folder: Path) -> nn.Module:
    """Trace the decoder into `folder`; returns the module. The model's number format is changed."""
    graph = form.graphs[MASK_DECODER]
    decoder = loaded.module(MASK_DECODER, DTYPES[form.precision])
    export_graph(decoder, graph, _samples(graph), folder)
    return decoder


def _samples(graph: Graph) -> tuple[torch.Tensor, ...]:
    """Zeros of the graph's inputs. No dynamic axis has length 1, which would be taken for fixed."""
    lengths = {"batch": 2, "prompts": 2, "points": 3}
    return tuple(
        torch.zeros([n if isinstance(n, int) else lengths[n] for n in tensor.shape], dtype=getattr(torch, tensor.dtype))
        for tensor in graph.inputs
    )


def weights_name(graph: Graph) -> str:
    """The file of a graph's external weights."""
    return graph.file.removesuffix(".onnx") + ".weights"


def describe(folder: Path, loaded: LoadedModel, source: Source, forms: Sequence[Form]) -> Manifest:
    """The manifest of the files in `folder`."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST_NAME)
    return Manifest(
        family=loaded.family,
        variant=loaded.variant,
        geometry=loaded.contract.geometry,
        features=loaded.contract.features,
        masks=loaded.contract.masks,
        forms=tuple(forms),
        files={path.name: FileEntry(sha256_of(path), path.stat().st_size) for path in files},
        source=source,
        exporter={"opset": OPSET, **{name: version(name) for name in ("samrt", "torch", "onnx", "onnxscript")}},
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json."""
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
