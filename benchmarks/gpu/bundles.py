"""Bundles made quickly: the exporter's graphs without its comparison on the CPU, which takes minutes for a ViT-B.

Nothing goes unchecked for it: the phase `engines` compares everything with the float32 graphs in ONNX Runtime, and the
tests compare those with torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

LOWERINGS = ("augmented", "dense")  # of the fp16 form, one bundle each
_REFERENCE = ("fp32", "chunked")  # in every bundle too: ONNX Runtime's form, which the engines are compared with


@dataclass(frozen=True)
class Job:
    """One graph to trace: "encoder" or "decoder" of a form. Lowerings share the decoder of their precision."""

    checkpoint: Path
    folder: Path
    graph: str
    precision: str
    lowering: str


def lowerings(smoke: bool) -> tuple[str, ...]:
    """Those of this run; tracing takes long, so without a GPU only the first."""
    return LOWERINGS[:1] if smoke else LOWERINGS


def path_of(folder: Path, model: str, lowering: str) -> Path:
    """Where the bundle of a model in one lowering lies."""
    return folder / "bundles" / f"{model}_{lowering}"


def jobs(checkpoint: Path, folder: Path, smoke: bool) -> list[Job]:
    """All graphs of a model, to be traced into `folder`."""
    forms = list(dict.fromkeys(form for lowering in lowerings(smoke) for form in _forms(lowering, smoke)))
    decoders = dict(forms)  # one lowering for each precision: they share it
    return [
        *(Job(checkpoint, folder, "encoder", *form) for form in forms),
        *(Job(checkpoint, folder, "decoder", *form) for form in decoders.items()),
    ]


def trace(job: Job) -> None:
    """Write one graph."""
    import torch
    from models import load

    from samrt_export.lowering import lower
    from samrt_export.models.sam import DecoderGraph, EncoderGraph
    from samrt_export.onnx_export import export_graph

    loaded = load(job.checkpoint)
    dtype = {"fp32": torch.float32, "fp16": torch.float16}[job.precision]
    graph = _graphs(loaded, job.precision, job.lowering)[job.graph]
    # Two of everything: a dynamic axis of length 1 in a sample would be fixed.
    if job.graph == "encoder":
        lower(loaded.sam.image_encoder, job.lowering)
        image = torch.zeros(2, 3, loaded.image_size, loaded.image_size)
        export_graph(EncoderGraph(loaded.sam, dtype), graph, (image,), job.folder, _weights(graph.file))
    else:
        L = loaded.low_res_size
        points = (torch.zeros(2, 3, 2), torch.zeros(2, 3, dtype=torch.int32))
        samples = (torch.zeros(1, *loaded.embedding_shape), *points, torch.zeros(2, 1, L, L), torch.zeros(2))
        export_graph(DecoderGraph(loaded.sam, dtype), graph, samples, job.folder)


def write_bundle(checkpoint: Path, traced: Path, lowering: str, smoke: bool, target: Path) -> None:
    """Make a bundle of the traced graphs: the fp16 form in one lowering, and the float32 one."""
    from models import load

    from samrt.files import sha256_of
    from samrt.manifest import MANIFEST_NAME, FileEntry, Form, Manifest, Source

    loaded = load(checkpoint)
    forms = [Form(*form, _graphs(loaded, *form), verification={}) for form in _forms(lowering, smoke)]
    target.mkdir(parents=True)
    for graph in (graph for form in forms for graph in form.graphs.values()):
        for file in (traced / graph.file, traced / _weights(graph.file)):
            if file.exists():
                os.link(file, target / file.name)
    manifest = Manifest(
        family=loaded.family,
        variant=loaded.variant,
        image_size=loaded.image_size,
        embedding_shape=loaded.embedding_shape,
        low_res_size=loaded.low_res_size,
        mask_threshold=0.0,
        normalization=loaded.normalization,
        forms=tuple(forms),
        files={file.name: FileEntry(sha256_of(file), file.stat().st_size) for file in sorted(target.iterdir())},
        source=Source(
            checkpoint.name,
            sha256_of(checkpoint),
            checkpoint.stat().st_size,
            sum(parameter.numel() for parameter in loaded.sam.parameters()),
        ),
        exporter={name: version(name) for name in ("samrt", "torch", "onnx", "onnxscript")},
    )
    (target / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")


def _forms(lowering: str, smoke: bool) -> list[tuple[str, str]]:
    return [("fp16", lowering), *([] if smoke else [_REFERENCE])]


def _weights(file: str) -> str:
    return file.removesuffix(".onnx") + ".weights"


def _graphs(loaded: Any, precision: str, lowering: str) -> dict[str, Any]:
    from samrt.manifest import contract_graph

    sizes = loaded.image_size, loaded.embedding_shape, loaded.low_res_size
    return {
        "encoder": contract_graph("encoder", f"encoder.{precision}-{lowering}.onnx", *sizes),
        "decoder": contract_graph("decoder", f"decoder.{precision}.onnx", *sizes),
    }
