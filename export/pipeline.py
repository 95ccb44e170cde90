"""Checkpoint to bundle: read, trace, compare, write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from samrt.backends import open_engine
from samrt.bundle import open_bundle, write_zip
from samrt.errors import InputError, OutputError
from samrt.files import replacing_file, replacing_folder, sha256_of
from samrt.manifest import MANIFEST_NAME, FileEntry, Graph, Manifest, Source, contract_graph
from samrt_export.checkpoint import read_checkpoint
from samrt_export.families import LoadedModel, load_model
from samrt_export.lowering import lower, resolve
from samrt_export.models.sam import DecoderGraph, EncoderGraph
from samrt_export.onnx_export import OPSET, export_graph
from samrt_export.tolerances import TOLERANCES
from samrt_export.verify import SEED, Reference, check, compare, make_reference

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_ENCODER, _ENCODER_WEIGHTS, _DECODER = "encoder.onnx", "encoder.weights", "decoder.onnx"


@dataclass(frozen=True)
class ExportOptions:
    """What to make of a checkpoint; None and "auto" leave the choice to the checkpoint."""

    model: str | None = None
    image_size: int | None = None
    lowering: str = "auto"
    precision: str = "fp32"


def export(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: ExportOptions | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Export a checkpoint to a bundle, compared with torch before it appears under its name.

    Args:
        checkpoint: a .pth file of the SAM family.
        output: the bundle's folder, or a file ending in .zip. What is there is replaced only when all went well.
        progress: called with one line per step.

    Raises:
        BundleError: the checkpoint cannot be read or recognised.
        InputError: an option does not fit it.
        ExportError: the graphs differ from the checkpoint by more than the tolerance.
        OutputError: the bundle cannot be written.
    """
    options, output = options or ExportOptions(), Path(output)
    if options.precision not in _DTYPES:
        raise InputError(f"unknown precision {options.precision!r}; choose one of {', '.join(_DTYPES)}")
    progress(f"reading {checkpoint}")
    read = read_checkpoint(checkpoint)
    loaded = load_model(read, options.model, options.image_size)
    lowering = resolve(options.lowering, loaded.sam.image_encoder, options.precision)
    parameters = sum(parameter.numel() for parameter in loaded.sam.parameters())
    progress(
        f"recognised {loaded.family} {loaded.variant}: {parameters / 1e6:.1f} M parameters, "
        f"image size {loaded.image_size}, lowering {lowering}, {options.precision}"
    )
    source = Source(read.path.name, read.sha256, read.bytes, parameters)
    writing = zipped if output.suffix == ".zip" else replacing_folder
    with writing(output) as folder:
        manifest = _fill(folder, loaded, source, lowering, options.precision, progress)
    progress(f"wrote {output}")
    return manifest


@contextmanager
def zipped(target: Path) -> Iterator[Path]:
    """Yield a folder beside `target` that becomes a zip under that name."""
    if target.is_dir():
        raise OutputError(f"cannot write {target}: a folder of that name exists; choose another name")
    with (
        replacing_file(target) as fresh,
        tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem[:64]}.") as folder,
    ):
        yield Path(folder)
        write_zip(folder, fresh)


def _fill(
    folder: Path,
    loaded: LoadedModel,
    source: Source,
    lowering: str,
    precision: str,
    progress: Callable[[str], None],
) -> Manifest:
    """Write the bundle's files. The model's attention and number format are changed on the way."""
    progress("running the checkpoint in torch, to compare with")
    reference = make_reference(loaded)
    graphs = _export_graphs(folder, loaded, lowering, precision, progress)
    draft = Manifest(
        family=loaded.family,
        variant=loaded.variant,
        image_size=loaded.image_size,
        embedding_shape=loaded.embedding_shape,
        low_res_size=loaded.low_res_size,
        mask_threshold=0.0,
        normalization=loaded.normalization,
        lowering=lowering,
        precision=precision,
        graphs=graphs,
        files={path.name: FileEntry(sha256_of(path), path.stat().st_size) for path in sorted(folder.iterdir())},
        source=source,
        exporter={"opset": OPSET, **{name: version(name) for name in ("samrt", "torch", "onnx", "onnxscript")}},
        verification={},
    )
    progress("comparing the exported graphs with torch, in ONNX Runtime")
    manifest = replace(draft, verification=_verify(folder, draft, reference))
    _write(folder, manifest)
    return manifest


def _export_graphs(
    folder: Path, loaded: LoadedModel, lowering: str, precision: str, progress: Callable[[str], None]
) -> dict[str, Graph]:
    embedding_shape, low_res_size = loaded.embedding_shape, loaded.low_res_size
    graphs = {
        name: contract_graph(name, file, loaded.image_size, embedding_shape, low_res_size)
        for name, file in (("encoder", _ENCODER), ("decoder", _DECODER))
    }
    progress("tracing the encoder")
    lower(loaded.sam.image_encoder, lowering)
    image = torch.zeros(2, 3, loaded.image_size, loaded.image_size)
    encoder = EncoderGraph(loaded.sam, _DTYPES[precision])
    export_graph(encoder, graphs["encoder"], (image,), folder, _ENCODER_WEIGHTS)
    progress("tracing the decoder")
    prompts = (
        torch.zeros(2, 3, 2),
        torch.zeros(2, 3, dtype=torch.int32),
        torch.zeros(2, 1, low_res_size, low_res_size),
        torch.zeros(2),
    )
    decoder = DecoderGraph(loaded.sam, _DTYPES[precision])
    export_graph(decoder, graphs["decoder"], (torch.zeros(1, *embedding_shape), *prompts), folder)
    return graphs


def _verify(folder: Path, draft: Manifest, reference: Reference) -> dict[str, Any]:
    """Run the bundle as its users will, and hold it against the tolerance of its precision."""
    _write(folder, draft)
    bundle = open_bundle(folder)
    encoder = open_engine(bundle, "encoder", "onnxruntime")
    decoder = open_engine(bundle, "decoder", "onnxruntime")
    figures = compare(reference, encoder, decoder)
    tolerance = TOLERANCES[draft.precision]
    check(figures, tolerance)
    return {
        "runtime": f"onnxruntime {version('onnxruntime')}",
        "seed": SEED,
        "figures": figures,
        "tolerance": asdict(tolerance),
    }


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
