"""Checkpoint to bundle: read, trace, compare, write."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from samrt.backends.onnxruntime import OnnxRuntimeEngine
from samrt.backends.session import open_session
from samrt.bundle.contract import IMAGE_ENCODER, MASK_DECODER
from samrt.bundle.folder import check_replaceable, open_bundle
from samrt.bundle.graph_check import PLUGIN_NAME
from samrt.bundle.manifest import Base, Form, Manifest, Source
from samrt.bundle.precisions import PRECISIONS, Tolerance
from samrt.engines.plugin import PLUGIN_LOWERING
from samrt.engines.sets import ENGINES_FOLDER, check_replaceable_set, is_engines_folder
from samrt.errors import ExportError, InputError, OutputError, Remedy, SamrtError
from samrt.files import replacing_folder
from samrt.progress import SILENT, Progress
from samrt.verification.compare import SEED, Reference, compare
from samrt.work_folder import remove_leftovers
from samrt_export.checkpoint import Checkpoint, read_checkpoint
from samrt_export.families import LoadedModel, load_model
from samrt_export.fine_tuning import over_base
from samrt_export.forms import describe, export_decoder, export_encoder, form_of, write_manifest
from samrt_export.lowering import resolve
from samrt_export.lowering.plugin import with_definition
from samrt_export.state import listed
from samrt_export.verify import check, checkpoint_reference, in_torch


@dataclass(frozen=True)
class ExportOptions:
    """What to make of a checkpoint.

    Attributes:
        model: the family or variant that the checkpoint has to be, such as "vit_b"; None accepts all.
        image_size: side S of the square model input in pixels; None is the model's own.
        lowering: the form of the encoder's attention, for all of `precisions` or one for each: "dense", "chunked",
            "augmented" or "plugin"; "auto" is chosen by model and precision.
        precisions: of the bundle's forms, one form for each: "fp32" for ONNX Runtime on the CPU, "fp16" for GPUs.
    """

    model: str | None = None
    image_size: int | None = None
    lowering: str | tuple[str, ...] = "auto"
    precisions: str | tuple[str, ...] = ("fp32",)


def export(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: ExportOptions | None = None,
    progress: Progress = SILENT,
    base: str | os.PathLike[str] | None = None,
) -> Manifest:
    """Export a checkpoint to a bundle, compared with torch before it appears under its name.

    Args:
        checkpoint: a .pth or safetensors file of the SAM family.
        output: the bundle's folder. A folder that is there is replaced only when all went well, and only if it is empty
            or holds a bundle and nothing else.
        options: what to make of it; by default one form in fp32.
        progress: is told each step, in one line: `samrt.Lines(print)` prints it.
        base: where `checkpoint` holds only a part of a model, such as a fine-tuned decoder: the checkpoint that it
            began from, which gives the rest.

    Returns:
        What the bundle's manifest.json says.

    Raises:
        BundleError: the checkpoint cannot be read or recognised.
        InputError: an option does not fit it.
        ExportError: the graphs differ from the checkpoint by more than the tolerance.
        OutputError: the bundle cannot be written.
    """
    options, output = options or ExportOptions(), Path(output)
    _check_precisions(_listed(options.precisions))
    asked = _lowering_of_each(options)
    if output.suffix == ".zip":
        raise OutputError(f"cannot write {output}: a bundle is a folder; name it {output.with_suffix('').name}")
    remove_leftovers(output / ENGINES_FOLDER, check_replaceable_set, say=progress.say)
    check_replaceable(output, is_engines_folder)
    read = _read(checkpoint, base, progress)

    def load() -> LoadedModel:
        return load_model(read, options.model, options.image_size)

    loaded = load()
    lowerings = {
        precision: resolve(lowering, loaded.sam.image_encoder, precision) for precision, lowering in asked.items()
    }
    parameters = sum(parameter.numel() for parameter in loaded.sam.parameters())
    forms = ", ".join(f"{precision} {lowering}" for precision, lowering in lowerings.items())
    progress.say(
        f"recognised {loaded.family} {loaded.variant}: {parameters / 1e6:.1f} M parameters, "
        f"image size {loaded.image_size}, to {forms}"
    )
    for note in loaded.notes:
        progress.say(note)
    if (output / ENGINES_FOLDER).is_dir():
        progress.say("the engines in the replaced bundle are deleted, as they belong to its graphs; build them again")
    source = Source(read.path.name, read.sha256, read.bytes, parameters, _base_of(read))

    def check(old: Path) -> None:
        check_replaceable(old, is_engines_folder, output)

    with replacing_folder(output, check, progress.say) as folder:
        try:
            manifest = _fill(folder, loaded, load, source, lowerings, progress)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, SamrtError):
                raise
            raise ExportError(
                f"torch failed: {error}",
                Remedy("if memory ran out, choose a smaller {image_size}; else please report it"),
            ) from error
    progress.say(f"wrote {output}")
    return manifest


def _read(path: str | os.PathLike[str], base: str | os.PathLike[str] | None, progress: Progress) -> Checkpoint:
    """The checkpoint, over its base if it has one."""
    progress.say(f"reading {path}")
    read = read_checkpoint(path)
    if read.root or read.left_out:
        beside = f"; left out: {listed(read.left_out)}" if read.left_out else ""
        progress.say(f"found the model under {listed([read.root or 'the file itself'])}{beside}")
    if base is None:
        return read
    progress.say(f"reading {base}")
    read, notes = over_base(read, read_checkpoint(base))
    for note in notes:
        progress.say(note)
    return read


def _base_of(checkpoint: Checkpoint) -> Base | None:
    base = checkpoint.base
    return None if base is None else Base(base.path.name, base.sha256, base.bytes, len(base.state))


def _listed(precisions: str | tuple[str, ...]) -> tuple[str, ...]:
    return (precisions,) if isinstance(precisions, str) else precisions


def _check_precisions(precisions: tuple[str, ...]) -> None:
    if not precisions or len(set(precisions)) != len(precisions) or not set(precisions) <= set(PRECISIONS):
        raise InputError(
            f"unknown precision {','.join(precisions)!r}; choose one of {', '.join(PRECISIONS)}, or several, each once"
        )


def _lowering_of_each(options: ExportOptions) -> dict[str, str]:
    """By precision."""
    precisions = _listed(options.precisions)
    given = (options.lowering,) if isinstance(options.lowering, str) else options.lowering
    if len(given) == 1:
        given = given * len(precisions)
    if len(given) != len(precisions):
        raise InputError(
            f"{len(given)} lowerings ({','.join(given)}) for {len(precisions)} precisions "
            f"({','.join(precisions)}); give one for all, or one for each in their order"
        )
    return dict(zip(precisions, given, strict=True))


def _fill(
    folder: Path,
    loaded: LoadedModel,
    reload: Callable[[], LoadedModel],
    source: Source,
    lowerings: dict[str, str],
    progress: Progress,
) -> Manifest:
    """Write the bundle's files: a form for each precision and its lowering."""
    progress.say("running the checkpoint in torch, to compare with")
    reference = checkpoint_reference(loaded)
    forms: list[Form] = []
    for precision, lowering in lowerings.items():
        # A form changes the model's attention and number format, so the next one starts from the checkpoint again.
        model = reload() if forms else loaded
        form = form_of(model, precision, lowering)
        progress.say(f"tracing the {precision} encoder")
        encoder = export_encoder(model, form, folder)
        progress.say(f"tracing the {precision} decoder")
        decoder = export_decoder(model, form, folder)
        draft = describe(folder, loaded, source, (form,))
        verification = _verify(folder, draft, reference, {IMAGE_ENCODER: encoder, MASK_DECODER: decoder}, progress)
        forms.append(replace(form, verification=verification))
    manifest = describe(folder, loaded, source, forms)
    write_manifest(folder, manifest)
    return manifest


def _verify(
    folder: Path,
    draft: Manifest,
    reference: Reference,
    modules: dict[str, nn.Module],
    progress: Progress,
) -> dict[str, Any]:
    """Compare the one form of `draft` with the checkpoint; past tolerance, raise."""
    (form,) = draft.forms
    precision = PRECISIONS[form.precision]
    tolerance = precision.tolerance
    progress.say(f"comparing the {form.precision} graphs with torch, in ONNX Runtime")
    figures = _compare_bundle(folder, draft, reference, tolerance)
    check(figures, form.precision)
    verification: dict[str, Any] = {
        "runtime": f"onnxruntime {version('onnxruntime')}",
        "seed": SEED,
        "figures": figures,
    }
    if form.lowering == PLUGIN_LOWERING:
        verification["attention"] = f"{PLUGIN_NAME} as defined in standard operators; no kernel was run"
    if precision.float32_on_cpu:
        # Torch computes in the precision itself: here an overflow shows.
        progress.say(f"comparing {precision.title} arithmetic, in torch")
        runs = {name: in_torch(module, form.graphs[name]) for name, module in modules.items()}
        verification["figures_in_half_arithmetic"] = compare(
            reference, runs[IMAGE_ENCODER], runs[MASK_DECODER], tolerance
        )
        check(verification["figures_in_half_arithmetic"], form.precision)
    return {**verification, "tolerance": asdict(tolerance)}


def _compare_bundle(folder: Path, draft: Manifest, reference: Reference, tolerance: Tolerance) -> dict[str, Any]:
    """Run the bundle as its users will; where they will need a plugin, with the definition of its node."""
    (form,) = draft.forms
    if form.lowering == PLUGIN_LOWERING:
        with with_definition(folder / form.graphs[IMAGE_ENCODER].file) as encoder:
            decoder = folder / form.graphs[MASK_DECODER].file
            return compare(reference, OnnxRuntimeEngine(encoder).run, OnnxRuntimeEngine(decoder).run, tolerance)
    write_manifest(folder, draft)
    with open_session(open_bundle(folder), "onnxruntime") as session:
        return compare(reference, session.encoder.run, session.decoder.run, tolerance)
