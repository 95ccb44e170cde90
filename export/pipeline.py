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
from torch import nn

from samrt.backends import open_session
from samrt.bundle import check_replaceable, open_bundle, write_zip
from samrt.errors import ExportError, InputError, OutputError, SamrtError
from samrt.files import replacing_file, replacing_folder, sha256_of
from samrt.manifest import MANIFEST_NAME, PRECISIONS, FileEntry, Form, Manifest, Source, contract_graph
from samrt.tolerances import TOLERANCES
from samrt.verification import SEED, Reference, compare
from samrt_export.checkpoint import read_checkpoint
from samrt_export.families import LoadedModel, load_model
from samrt_export.lowering import lower, resolve
from samrt_export.models.sam import DecoderGraph, EncoderGraph
from samrt_export.onnx_export import OPSET, export_graph
from samrt_export.verify import check, checkpoint_reference, in_torch

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class ExportOptions:
    """What to make of a checkpoint; None and "auto" leave the choice to the checkpoint.

    The bundle gets one form per entry of `precisions`: "fp32" for ONNX Runtime on the CPU, "fp16" for GPUs.
    """

    model: str | None = None
    image_size: int | None = None
    lowering: str = "auto"
    precisions: tuple[str, ...] = ("fp32",)


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
    _check_precisions(options.precisions)
    check_replaceable(output)
    progress(f"reading {checkpoint}")
    read = read_checkpoint(checkpoint)

    def load() -> LoadedModel:
        return load_model(read, options.model, options.image_size)

    loaded = load()
    lowerings = {
        precision: resolve(options.lowering, loaded.sam.image_encoder, precision) for precision in options.precisions
    }
    parameters = sum(parameter.numel() for parameter in loaded.sam.parameters())
    forms = ", ".join(f"{precision} {lowering}" for precision, lowering in lowerings.items())
    progress(
        f"recognised {loaded.family} {loaded.variant}: {parameters / 1e6:.1f} M parameters, "
        f"image size {loaded.image_size}, to {forms}"
    )
    source = Source(read.path.name, read.sha256, read.bytes, parameters)
    writing = zipped if output.suffix == ".zip" else replacing_folder
    with writing(output) as folder:
        try:
            manifest = _fill(folder, loaded, load, source, lowerings, progress)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, SamrtError):
                raise
            raise ExportError(
                f"torch failed: {error}. If memory ran out, choose a smaller --image-size; else please report it"
            ) from error
    progress(f"wrote {output}")
    return manifest


def _check_precisions(precisions: tuple[str, ...]) -> None:
    if not precisions or len(set(precisions)) != len(precisions) or not set(precisions) <= set(PRECISIONS):
        raise InputError(
            f"unknown precision {','.join(precisions)!r}; choose one of {', '.join(PRECISIONS)}, or several, each once"
        )


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
    reload: Callable[[], LoadedModel],
    source: Source,
    lowerings: dict[str, str],
    progress: Callable[[str], None],
) -> Manifest:
    """Write the bundle's files: a form for each precision and its lowering."""
    progress("running the checkpoint in torch, to compare with")
    reference = checkpoint_reference(loaded)
    forms: list[Form] = []
    for precision, lowering in lowerings.items():
        # A form changes the model's attention and number format, so the next one starts from the checkpoint again.
        model = reload() if forms else loaded
        form, modules = _export_form(folder, model, precision, lowering, progress)
        draft = _manifest(folder, loaded, source, (form,))
        forms.append(replace(form, verification=_verify(folder, draft, reference, modules, progress)))
    manifest = _manifest(folder, loaded, source, tuple(forms))
    _write(folder, manifest)
    return manifest


def _export_form(
    folder: Path, loaded: LoadedModel, precision: str, lowering: str, progress: Callable[[str], None]
) -> tuple[Form, dict[str, nn.Module]]:
    """Write the graphs of one form; returns what they are, and the modules that they were traced from."""
    embedding_shape, low_res_size = loaded.embedding_shape, loaded.low_res_size
    name = f"{precision}-{lowering}"
    graphs = {
        # Lowerings differ in the encoder only.
        which: contract_graph(which, f"{which}.{suffix}.onnx", loaded.image_size, embedding_shape, low_res_size)
        for which, suffix in (("encoder", name), ("decoder", precision))
    }
    progress(f"tracing the {precision} encoder")
    lower(loaded.sam.image_encoder, lowering)
    image = torch.zeros(2, 3, loaded.image_size, loaded.image_size)
    encoder = EncoderGraph(loaded.sam, _DTYPES[precision])
    export_graph(encoder, graphs["encoder"], (image,), folder, f"encoder.{name}.weights")
    progress(f"tracing the {precision} decoder")
    prompts = (
        torch.zeros(2, 3, 2),
        torch.zeros(2, 3, dtype=torch.int32),
        torch.zeros(2, 1, low_res_size, low_res_size),
        torch.zeros(2),
    )
    decoder = DecoderGraph(loaded.sam, _DTYPES[precision])
    export_graph(decoder, graphs["decoder"], (torch.zeros(1, *embedding_shape), *prompts), folder)
    return Form(precision, lowering, graphs, verification={}), {"encoder": encoder, "decoder": decoder}


def _manifest(folder: Path, loaded: LoadedModel, source: Source, forms: tuple[Form, ...]) -> Manifest:
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST_NAME)
    return Manifest(
        family=loaded.family,
        variant=loaded.variant,
        image_size=loaded.image_size,
        embedding_shape=loaded.embedding_shape,
        low_res_size=loaded.low_res_size,
        mask_threshold=0.0,
        normalization=loaded.normalization,
        forms=forms,
        files={path.name: FileEntry(sha256_of(path), path.stat().st_size) for path in files},
        source=source,
        exporter={"opset": OPSET, **{name: version(name) for name in ("samrt", "torch", "onnx", "onnxscript")}},
    )


def _verify(
    folder: Path,
    draft: Manifest,
    reference: Reference,
    modules: dict[str, nn.Module],
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Compare the one form of `draft` with the checkpoint; past tolerance, raise."""
    (form,) = draft.forms
    tolerance = TOLERANCES[form.precision]
    progress(f"comparing the {form.precision} graphs with torch, in ONNX Runtime")
    figures = _compare_bundle(folder, draft, reference)
    check(figures, tolerance)
    verification: dict[str, Any] = {
        "runtime": f"onnxruntime {version('onnxruntime')}",
        "seed": SEED,
        "figures": figures,
    }
    if form.precision == "fp16":
        # On a CPU, ONNX Runtime computes fp16 graphs in float32. Torch does not: here an overflow shows.
        progress("comparing half precision arithmetic, in torch")
        runs = {name: in_torch(module, form.graphs[name]) for name, module in modules.items()}
        verification["figures_in_half_arithmetic"] = compare(reference, runs["encoder"], runs["decoder"])
        check(verification["figures_in_half_arithmetic"], tolerance)
    return {**verification, "tolerance": asdict(tolerance)}


def _compare_bundle(folder: Path, draft: Manifest, reference: Reference) -> dict[str, Any]:
    """Run the bundle as its users will."""
    _write(folder, draft)
    with open_session(open_bundle(folder), "onnxruntime") as session:
        return compare(reference, session.encoder.run, session.decoder.run)


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
