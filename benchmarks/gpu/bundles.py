"""Bundles made quickly: the exporter's graphs without its comparison on the CPU, which takes minutes for a ViT-B.

Everything is still checked: the phase `engines` compares all engines with the float32 graphs in ONNX Runtime, and the
tests compare those graphs with torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

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
    from models import load

    from samrt_export.forms import export_decoder, export_encoder, form_of

    loaded = load(job.checkpoint)
    form = form_of(loaded, job.precision, job.lowering)
    (export_encoder if job.graph == "encoder" else export_decoder)(loaded, form, job.folder)


def write_bundle(checkpoint: Path, traced: Path, lowering: str, smoke: bool, target: Path) -> None:
    """Make a bundle of the traced graphs: the fp16 form in one lowering, and the float32 one."""
    from models import load

    from samrt.bundle.manifest import Source
    from samrt.files import sha256_of
    from samrt_export.forms import describe, form_of, weights_name, write_manifest

    loaded = load(checkpoint)
    forms = [form_of(loaded, *form) for form in _forms(lowering, smoke)]
    target.mkdir(parents=True)
    for graph in (graph for form in forms for graph in form.graphs.values()):
        for file in (traced / graph.file, traced / weights_name(graph)):
            if file.exists():
                os.link(file, target / file.name)
    parameters = sum(parameter.numel() for parameter in loaded.sam.parameters())
    source = Source(checkpoint.name, sha256_of(checkpoint), checkpoint.stat().st_size, parameters)
    write_manifest(target, describe(target, loaded, source, forms))


def _forms(lowering: str, smoke: bool) -> list[tuple[str, str]]:
    return [("fp16", lowering), *([] if smoke else [_REFERENCE])]
