"""A bundle's graphs to engines in the bundle: build, compare on the GPU where there is one, install by rename."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from samrt.backends.session import Session, open_engines, open_onnxruntime
from samrt.bundle.contract import IMAGE_ENCODER, PROMPT_INPUTS, ROLES, Graph
from samrt.bundle.default import is_default
from samrt.bundle.file_state import check_unchanged
from samrt.bundle.folder import Bundle, open_bundle
from samrt.bundle.manifest import FileEntry, Form
from samrt.bundle.precisions import PRECISIONS
from samrt.device.gpus import find_gpus
from samrt.device.session import DeviceOptions
from samrt.engines.builder.child import build_in_child
from samrt.engines.builder.engine import BuildOptions, BuiltEngine
from samrt.engines.builder.targets import choose_targets
from samrt.engines.flavours import Flavour, import_flavour, installed_flavours
from samrt.engines.manifest import (
    ENGINE_MANIFEST_NAME,
    EngineFile,
    EngineManifest,
    engine_file_name,
    platform_name,
)
from samrt.engines.plugin import PLUGIN, PLUGIN_LOWERING, WITH_PLUGIN, RequiredPlugin, prepare_plugin
from samrt.engines.profiles import BuildLimits, ranges
from samrt.engines.selection import Choice, source_hashes
from samrt.engines.sets import ENGINES_FOLDER, EngineSet, check_replaceable_set
from samrt.errors import BackendError, InputError, OutputError, Remedy
from samrt.files import check_target, replacing_folder, sha256_of
from samrt.progress import SILENT, Progress
from samrt.verification.compare import SEED, Reference, Run, compare, make_reference, past_tolerance
from samrt.work_folder import remove_leftovers

# Its Scan is made for caches of a CPU, and TensorRT's parser does not take it.
_CPU_LOWERING = "chunked"


@dataclass(frozen=True)
class BuildRequest:
    """What to build from a bundle.

    Attributes:
        backend: "tensorrt" or "tensorrt_rtx"; "auto" is TensorRT where it is installed and a GPU is found, else
            TensorRT-RTX.
        precision: that of one of the bundle's forms, "fp16" or "fp32".
        limits: the most that the engines take at once.
        options: for which GPUs, with how much memory.
    """

    backend: str = "auto"
    precision: str = "fp16"
    limits: BuildLimits = field(default_factory=BuildLimits)
    options: BuildOptions = field(default_factory=BuildOptions)


def build_bundle(
    path: str | os.PathLike[str], request: BuildRequest | None = None, progress: Progress = SILENT
) -> EngineManifest:
    """Build the encoder's and the decoder's engine and put them into the bundle, replacing the same set of before.

    Each is built in a process of its own, so that a graph that crashes TensorRT is an error. It runs this Python, or
    the one that `multiprocessing.set_executable` names, and needs no `__main__` guard.

    Where a GPU can run them, they are compared with the bundle's fp32 graphs in ONNX Runtime first, and installed only
    within tolerance.

    Args:
        path: the bundle's folder.
        request: what to build; by default fp16 engines for the GPU of this machine.
        progress: is told each step, in one line: `samrt.Lines(print)` prints it.

    Returns:
        What the engine.json of the set says.

    Raises:
        BundleError: the bundle is missing or damaged.
        InputError: an option that does not fit.
        BackendError: TensorRT is missing, refuses a graph, crashes or is past a limit of `request.options`; or the
            engines are past tolerance.
        OutputError: the engines cannot be written, or `path` is `samrt.default_bundle()`. In each case the bundle and
            its engines are as they were.
    """
    request = request or BuildRequest()
    if request.precision not in PRECISIONS:
        raise InputError(f"unknown precision {request.precision!r}; choose one of {', '.join(PRECISIONS)}")
    if is_default(path):
        raise OutputError(
            f"{path} is the model in the installed package, where nothing else belongs; copy it, and build there"
        )
    bundle = open_bundle(path)
    form = _buildable(bundle, request.precision)
    standard = _standard(bundle, form)
    flavour = import_flavour(_choose_flavour(request.backend))
    engines = bundle.path / ENGINES_FOLDER
    remove_leftovers(engines, check_replaceable_set, say=progress.say)
    _make_writable(engines)  # before minutes of building
    for folder in engines.glob(f"{flavour.name}-{flavour.version}-*-{form.name}"):
        check_replaceable_set(folder)
    plugin = _plugin(form, flavour, request.options, progress)
    progress.say(f"building {form.name} engines with {flavour.title}")
    contract = bundle.manifest.contract
    # With the format's own names of the dynamic axes, which a manifest may call otherwise.
    graphs = {role: contract.graph(role, form.graphs[role].file) for role in ROLES}
    built = {}
    for name, graph in graphs.items():
        onnx, shapes = bundle.graph_file(graph), ranges(graph, request.limits)
        built[name] = build_in_child(flavour, onnx, shapes, request.options, progress, engines, plugin is not None)
        for warning in built[name].warnings:
            progress.say(f"building {name}: {flavour.title} warns: {warning}")
    check_unchanged({bundle.path / name: state for name, state in bundle.states.items()})
    capabilities = built[IMAGE_ENCODER].compute_capabilities
    gpu = next((gpu for gpu in find_gpus() if gpu.compute_capability in capabilities), None)
    draft = EngineManifest(
        backend=flavour.name,
        version=flavour.version,
        platform=platform_name(),
        compute_capabilities=capabilities,
        device=gpu.name if gpu else None,
        precision=form.precision,
        lowering=form.lowering,
        sources=source_hashes(bundle.manifest, form),
        limits=request.limits,
        engines={},
        verification=None,
        plugin=plugin,
    )
    target = engines / draft.name
    with replacing_folder(target, lambda old: check_replaceable_set(old, target), progress.say) as folder:
        files = {name: _write_engine(folder, name, graphs[name], one, request.limits) for name, one in built.items()}
        manifest = replace(draft, engines=files)
        if gpu is None:
            progress.say("not compared with the bundle: no GPU here can run these engines")
        else:
            progress.say(f"comparing with the bundle's graphs in ONNX Runtime, on {gpu.name}")
            built_set = EngineSet(folder, manifest)
            manifest = replace(manifest, verification=_verify(bundle, form, standard, built_set, gpu.index))
        (folder / ENGINE_MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    progress.say(f"wrote {engines / manifest.name}")
    return manifest


def _buildable(bundle: Bundle, precision: str) -> Form:
    of_precision = [form for form in bundle.manifest.forms if form.precision == precision]
    for form in of_precision:
        if form.lowering != _CPU_LOWERING:
            return form
    held = ", ".join(form.name for form in bundle.manifest.forms)
    if of_precision:
        reason = f"of {precision} it holds the {_CPU_LOWERING} form only, which is for ONNX Runtime"
    else:
        reason = f"it holds {held}"
    if precision == "fp16" and not of_precision:
        remedy = Remedy("export it with {precisions}", {"precisions": ("fp32", "fp16")})
    else:
        with_ = {"precisions": (precision,), "lowering": "dense"}
        remedy = Remedy("export it with {precisions} and {lowering}", with_)
    raise BackendError(f"{bundle.path} has nothing to build {precision} engines from: {reason}", remedy)


def _standard(bundle: Bundle, form: Form) -> Form:
    """The form that engines of `form` are compared with in ONNX Runtime: fp32, else the same."""
    standard = bundle.manifest.form("fp32") or form
    if standard.lowering == PLUGIN_LOWERING:
        raise BackendError(
            f"{bundle.path} holds {form.name} only, which ONNX Runtime cannot run, so engines of it could not be "
            "compared with anything",
            Remedy("export the checkpoint with {precisions} and {lowering}", WITH_PLUGIN),
        )
    return standard


def _plugin(form: Form, flavour: Flavour, options: BuildOptions, progress: Progress) -> RequiredPlugin | None:
    """What engines of this form need besides TensorRT, found, tested and loaded."""
    if form.lowering != PLUGIN_LOWERING:
        return None
    targets = choose_targets(flavour, options.compute_capabilities)
    prepare_plugin(flavour, targets.compute_capabilities, progress)
    return PLUGIN


def _choose_flavour(backend: str) -> str:
    if backend != "auto":
        return backend
    installed = installed_flavours()
    # TensorRT builds on a GPU and for that one; TensorRT-RTX anywhere. TensorRT alone gets to say what it lacks.
    for name in ("tensorrt", "tensorrt_rtx") if find_gpus() else ("tensorrt_rtx", "tensorrt"):
        if name in installed:
            return name
    raise BackendError(
        "neither TensorRT nor TensorRT-RTX is installed; in a checkout of samrt, `pip install '.[rtx]'` installs "
        "TensorRT-RTX; on a Jetson TensorRT is part of JetPack, see docs/jetson.md"
    )


def _make_writable(engines: Path) -> None:
    try:
        engines.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {engines}: {error.strerror}; move what is there, or check the permissions"
        ) from error
    check_target(engines / ENGINE_MANIFEST_NAME)


def _write_engine(folder: Path, name: str, graph: Graph, built: BuiltEngine, limits: BuildLimits) -> EngineFile:
    path = folder / engine_file_name(name)
    path.write_bytes(built.plan)
    return EngineFile(
        graph=replace(graph, file=path.name),
        content=FileEntry(sha256_of(path), path.stat().st_size),
        ranges=ranges(graph, limits),
        memory=built.memory,
        build_seconds=built.seconds,
    )


def _verify(bundle: Bundle, form: Form, standard: Form, engines: EngineSet, device: int) -> dict[str, Any]:
    """Figures of the engines against `standard` in ONNX Runtime, which computes every form in float32 on a CPU."""
    limits, tolerance = engines.manifest.limits, PRECISIONS[form.precision].tolerance
    with open_onnxruntime(bundle, Choice("onnxruntime", standard)) as session:
        reference = _reference(bundle, session, limits)
    choice = Choice(engines.manifest.backend, form, engines)
    with open_engines(choice, engines, DeviceOptions(device)) as session:
        encoder, decoder = _in_full_batches(session.encoder.run, limits), _one_by_one(session.decoder.run, limits)
        figures = compare(reference, encoder, decoder, tolerance)
    if past := past_tolerance(figures, tolerance):
        raise BackendError(
            f"the engines differ from {standard.name} in ONNX Runtime by more than the tolerance ({'; '.join(past)}). "
            "They were not installed; please report it with these figures",
            None if form.precision == "fp32" else Remedy("build with {precision} meanwhile", {"precision": "fp32"}),
        )
    return {
        "reference": standard.name,
        "runtime": f"onnxruntime {version('onnxruntime')}",
        "seed": SEED,
        "figures": figures,
        "tolerance": asdict(tolerance),
    }


def _reference(bundle: Bundle, session: Session, limits: BuildLimits) -> Reference:
    reference = make_reference(bundle.manifest.contract, session.encoder.run, session.decoder.run)
    # What the engines were not built for is not asked of them.
    fitting = {
        kind: prompt
        for kind, prompt in reference.prompts.items()
        if prompt["point_labels"].shape[1] <= limits.max_points
    }
    return replace(reference, prompts=fitting)


def _in_full_batches(encoder: Run, limits: BuildLimits) -> Run:
    """The encoder, given as many copies of the image at once as it takes; what it makes of the last one."""

    def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
        copies = {name: np.repeat(array, limits.max_batch, axis=0) for name, array in inputs.items()}
        return {name: array[-1:] for name, array in encoder(copies).items()}

    return run


def _one_by_one(decoder: Run, limits: BuildLimits) -> Run:
    """The decoder, given no more prompts at once than it takes."""

    def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
        prompts = {name: inputs[name] for name in PROMPT_INPUTS}
        shared = {name: array for name, array in inputs.items() if name not in prompts}
        count = len(prompts["point_coords"])
        pieces = [
            decoder({**shared, **{name: array[start : start + limits.max_prompts] for name, array in prompts.items()}})
            for start in range(0, count, limits.max_prompts)
        ]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    return run
