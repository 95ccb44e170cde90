"""Checkpoint to bundle: read, trace, compare, write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from samrt.backends import open_engine
from samrt.bundle import check_replaceable, open_bundle, write_zip
from samrt.errors import ExportError, InputError, OutputError, SamrtError
from samrt.files import replacing_file, replacing_folder, sha256_of
from samrt.manifest import MANIFEST_NAME, FileEntry, Graph, Manifest, Source, contract_graph
from samrt_export.checkpoint import read_checkpoint
from samrt_export.families import LoadedModel, load_model
from samrt_export.lowering import lower, resolve
from samrt_export.models.sam import DecoderGraph, EncoderGraph
from samrt_export.onnx_export import OPSET, export_graph
from samrt_export.tolerances import TOLERANCES
from samrt_export.verify import SEED, Reference, check, compare, in_torch, make_reference

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
        output: the bundle's folder, or a file ending in .zip. What is there is replaced only when all went well;
            a folder only if it is empty or holds a bundle and nothing else.
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
    check_replaceable(output)
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
        try:
            manifest = _fill(folder, loaded, source, lowering, options.precision, progress)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, SamrtError):
                raise
            raise ExportError(
                f"torch failed: {error}. If memory ran out, choose a smaller --image-size; else please report it"
            ) from error
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
    graphs, modules = _export_graphs(folder, loaded, lowering, precision, progress)
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
    tolerance = TOLERANCES[precision]
    progress("comparing the exported graphs with torch, in ONNX Runtime")
    figures = _compare_bundle(folder, draft, reference)
    check(figures, tolerance)
    verification: dict[str, Any] = {
        "runtime": f"onnxruntime {version('onnxruntime')}",
        "seed": SEED,
        "figures": figures,
    }
    if precision == "fp16":
        # On a CPU, ONNX Runtime computes fp16 graphs in float32. Torch does not: here an overflow shows.
        progress("comparing half precision arithmetic, in torch")
        runs = {name: in_torch(module, graphs[name]) for name, module in modules.items()}
        verification["figures_in_half_arithmetic"] = compare(reference, runs["encoder"], runs["decoder"])
        check(verification["figures_in_half_arithmetic"], tolerance)
    manifest = replace(draft, verification={**verification, "tolerance": asdict(tolerance)})
    _write(folder, manifest)
    return manifest


def _export_graphs(
    folder: Path, loaded: LoadedModel, lowering: str, precision: str, progress: Callable[[str], None]
) -> tuple[dict[str, Graph], dict[str, nn.Module]]:
    """Write both graphs; returns what they are, and the modules that they were traced from."""
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
    return graphs, {"encoder": encoder, "decoder": decoder}


def _compare_bundle(folder: Path, draft: Manifest, reference: Reference) -> dict[str, Any]:
    """Run the bundle as its users will."""
    _write(folder, draft)
    bundle = open_bundle(folder)
    with (
        closing(open_engine(bundle, "encoder", "onnxruntime")) as encoder,
        closing(open_engine(bundle, "decoder", "onnxruntime")) as decoder,
    ):
        return compare(reference, encoder.run, decoder.run)


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
