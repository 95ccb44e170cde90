"""Which backend, form and engines run a bundle on this machine, found out before anything of it is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass

from samrt.bundle.default import is_default
from samrt.bundle.folder import Bundle
from samrt.bundle.manifest import Form, Manifest
from samrt.bundle.precisions import PRECISIONS
from samrt.device.gpus import Gpu, find_gpus
from samrt.engines.flavours import FLAVOURS, import_flavour, installed_flavours
from samrt.engines.manifest import EngineManifest, platform_name
from samrt.engines.plugin import PLUGIN, PLUGIN_LOWERING, WITH_PLUGIN, find_plugin, why_not_for
from samrt.engines.rtx_plugins import why_untried
from samrt.engines.sets import BrokenEngineSet, EngineSet, find_engine_sets
from samrt.errors import BackendError, InputError, Reason, Remedy
from samrt.kernels.library import PLUGIN_VARIABLE

BACKENDS = ("onnxruntime", *FLAVOURS)


@dataclass(frozen=True)
class Machine:
    """What decides whether an engine can run.

    Attributes:
        platform: operating system and processor.
        gpu: the GPU that was asked for, or None.
        versions: of the TensorRT flavours that can be imported.
        problems: why the others cannot; under "plugin", why samrt's plugin for TensorRT cannot be used.
    """

    platform: str
    gpu: Gpu | None
    versions: dict[str, str]
    problems: dict[str, Reason]


@dataclass(frozen=True)
class Choice:
    """What will run a bundle.

    Attributes:
        backend: one of `BACKENDS`.
        form: the precision and lowering of the graphs.
        engines: for the TensorRT backends.
        skipped: engines that would have been preferred, each with the reason why it cannot run here.
    """

    backend: str
    form: Form
    engines: EngineSet | None = None
    skipped: tuple[Reason, ...] = ()

    def __str__(self) -> str:
        if self.engines is None:
            return f"{self.backend}, {self.form.name}"
        built = self.engines.manifest
        compared = "" if built.verification else ", not compared with the bundle yet: build them again here"
        return f"{self.backend} {built.version}, {self.form.name}{compared}"


def check_backend(name: str) -> None:
    """Raises BackendError where there is no backend of this name."""
    if not isinstance(name, str) or name not in ("auto", *BACKENDS):
        raise BackendError(f"there is no backend {name!r}; choose one of auto, {', '.join(BACKENDS)}")


def choose(bundle: Bundle, backend: str = "auto", device: int = 0, precision: str | None = None) -> Choice:
    """What runs the bundle on this machine, found out without opening any of it.

    "auto" is the best engines in the bundle that fit the GPU, else ONNX Runtime on the CPU. `precision` is one of
    `PRECISIONS`; None: the best for what runs, which is the most exact on a CPU.

    Raises:
        InputError: there is no precision of this name.
        BackendError: there is no backend of this name, or no engines or form of it that fit; the message says why not.
    """
    check_backend(backend)
    if precision is not None and (not isinstance(precision, str) or precision not in PRECISIONS):
        raise InputError(f"there is no precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    held = [form.name for form in bundle.manifest.forms]
    if precision is not None and bundle.manifest.form(precision) is None:
        raise BackendError(
            f"{bundle.path} has no form of precision {precision}, it holds {', '.join(held)}; choose the precision of "
            f"one of those, or export the checkpoint in {precision} too"
        )
    skipped: list[Reason] = []
    if backend != "onnxruntime":
        found = find_engine_sets(bundle.folder)
        whole = [each for each in found if isinstance(each, EngineSet) and backend in ("auto", each.manifest.backend)]
        # Looking for a GPU takes a moment, so only where there is an engine to run on it.
        if whole:
            machine = this_machine(device)
        for engines in whole:
            fitting = fit(engines, bundle.manifest, machine, precision)
            if isinstance(fitting, Form):
                return Choice(engines.manifest.backend, fitting, engines, tuple(skipped))
            skipped.append(_of(engines, fitting))
        skipped += [_of(each, each.problem) for each in found if isinstance(each, BrokenEngineSet)]
    if backend in FLAVOURS:
        raise _no_engines(bundle, backend, precision, skipped)
    precisions = (precision,) if precision else tuple(PRECISIONS)
    form = _for_onnxruntime(bundle.manifest, precisions)
    if form is None:
        raise _no_form_for_onnxruntime(bundle, precisions, skipped)
    return Choice("onnxruntime", form, skipped=tuple(skipped))


def _for_onnxruntime(bundle: Manifest, precisions: tuple[str, ...]) -> Form | None:
    """The form that ONNX Runtime runs, in the first of the `precisions` that has one without TensorRT's plugin."""
    forms = [form for form in bundle.forms if form.lowering != PLUGIN_LOWERING]
    return next((form for precision in precisions for form in forms if form.precision == precision), None)


def _no_form_for_onnxruntime(bundle: Bundle, precisions: tuple[str, ...], skipped: list[Reason]) -> BackendError:
    held = ", ".join(form.name for form in bundle.manifest.forms if form.precision in precisions)
    asked = f" in {precisions[0]}" if len(precisions) == 1 else ""
    engines = f", and no engines in it can run here: {_facts(skipped)}" if skipped else ""
    return BackendError(
        f"{bundle.path} holds {held} only{asked}, whose attention is a plugin of TensorRT that ONNX Runtime does "
        f"not have{engines}",
        Remedy("export the checkpoint with {precisions} and {lowering} to have a form for each", WITH_PLUGIN),
    )


def _facts(skipped: list[Reason]) -> str:
    return "; ".join(reason.facts for reason in skipped)


def _of(engines: EngineSet | BrokenEngineSet, reason: Reason) -> Reason:
    return Reason(f"{engines.folder.name}: {reason.facts}", reason.remedy)


def _no_engines(bundle: Bundle, backend: str, precision: str | None, skipped: list[Reason]) -> BackendError:
    if skipped:
        remedies = [reason.remedy for reason in skipped if reason.remedy is not None]
        texts = dict.fromkeys(remedy.text for remedy in remedies)
        arguments = {name: value for remedy in remedies for name, value in remedy.arguments.items()}
        return BackendError(
            f"no engines of {backend} in {bundle.path} can run here: {_facts(skipped)}",
            Remedy(", or ".join(texts), arguments) if remedies else None,
        )
    with_ = {"backend": backend} if precision is None else {"backend": backend, "precision": precision}
    names = f"{{build_bundle}} ({', '.join(f'{{{name}}}' for name in with_)})"
    if is_default(bundle.path):
        return BackendError(
            f"the model that comes with samrt has no engines, and none are built in its folder {bundle.path}",
            Remedy(f"copy the folder, build engines in the copy with {names}, and load the copy", with_),
        )
    return BackendError(f"{bundle.path} holds no engines of {backend}", Remedy(f"build them with {names}", with_))


def this_machine(device: int = 0, *, run_named: bool = True) -> Machine:
    """What this machine has; `device` is the GPU's index. Where there is a GPU, TensorRT is imported.

    Where a variable names the plugin, it is loaded, which runs its code, with `run_named` only.
    """
    gpu = next((gpu for gpu in find_gpus() if gpu.index == device), None)
    versions, problems = installed_flavours(), {}
    # The package's own word counts, as its metadata may say it in another form; without a GPU it does not matter.
    for name in list(versions) if gpu else ():
        try:
            versions[name] = import_flavour(name).version
        except BackendError as error:
            problems[name] = error.reason
    if gpu and versions.keys() - problems.keys():
        if not run_named and os.environ.get(PLUGIN_VARIABLE):
            problems["plugin"] = Reason(
                f"not known, because the plugin that {PLUGIN_VARIABLE} names is not loaded here"
            )
            return Machine(platform_name(), gpu, versions, problems)
        try:
            kernels = find_plugin()
        except BackendError as error:
            problems["plugin"] = error.reason
        else:
            if reason := why_not_for(kernels, gpu.compute_capability):
                problems["plugin"] = reason
    return Machine(platform_name(), gpu, versions, problems)


def fit(engines: EngineSet, bundle: Manifest, machine: Machine, precision: str | None = None) -> Form | Reason:
    """The form of the bundle that these engines run, or why they cannot run here, or not in `precision`."""
    built = engines.manifest
    if precision not in (None, built.precision):
        return Reason(f"{precision} was asked for")
    form = form_of(built, bundle)
    if form is None or built.sources != source_hashes(bundle, form):
        return Reason("built from other graphs than the bundle holds now", _build_again(built))
    if built.platform != machine.platform:
        return Reason(f"built for {built.platform}, this is {machine.platform}", _build_again(built))
    return _other_gpu(built, machine) or _other_version(built, machine) or _other_plugin(built, machine) or form


def _build_again(built: EngineManifest) -> Remedy:
    return Remedy("build them again on this machine with {build_bundle} ({backend})", {"backend": built.backend})


def _other_version(built: EngineManifest, machine: Machine) -> Reason | None:
    if built.backend in machine.problems:
        return machine.problems[built.backend]
    version = machine.versions.get(built.backend)
    if version is None:
        return Reason(f"needs {built.backend} {built.version}, which is not installed; install it, see `samrt doctor`")
    # An engine is for one version alone, of either flavour.
    if version == built.version:
        return None
    return Reason(f"built with {built.backend} {built.version}, here is {version}", _build_again(built))


def _other_plugin(built: EngineManifest, machine: Machine) -> Reason | None:
    if built.plugin is None:
        return None
    if built.plugin != PLUGIN:
        return Reason(f"built with {built.plugin}, this samrt has {PLUGIN}", _build_again(built))
    if built.backend == "tensorrt_rtx" and (untried := why_untried(built.version)):
        return Reason(untried)
    return machine.problems.get("plugin")


def _other_gpu(built: EngineManifest, machine: Machine) -> Reason | None:
    gpu = machine.gpu
    if gpu is None:
        return Reason("no NVIDIA GPU can be used here; see `samrt doctor`")
    if gpu.compute_capability in built.compute_capabilities:
        return None
    return Reason(
        f"built for compute capability {', '.join(built.compute_capabilities)}, {gpu.name} has "
        f"{gpu.compute_capability}",
        _build_again(built),
    )


def form_of(engines: EngineManifest, bundle: Manifest) -> Form | None:
    """The form of the bundle that the engines were built from."""
    wanted = f"{engines.precision}-{engines.lowering}"
    return next((form for form in bundle.forms if form.name == wanted), None)


def source_hashes(bundle: Manifest, form: Form) -> dict[str, str]:
    """SHA-256 of each file that engines of this form are made from."""
    return {name: bundle.files[name].sha256 for name in bundle.files_of(form)}
