"""Which backend, form and engines run a bundle on this machine, found out before anything of it is opened."""

from __future__ import annotations

from dataclasses import dataclass

from samrt.bundle.default import is_default
from samrt.bundle.folder import Bundle
from samrt.bundle.manifest import Form, Manifest
from samrt.bundle.precisions import PRECISIONS
from samrt.device.gpus import Gpu, find_gpus
from samrt.engines.flavours import FLAVOURS, import_flavour, installed_flavours
from samrt.engines.manifest import EngineManifest, platform_name
from samrt.engines.plugin import EXPORT_WITH_PLUGIN, PLUGIN, PLUGIN_LOWERING, find_plugin, why_not_for
from samrt.engines.rtx_plugins import why_untried
from samrt.engines.sets import EngineSet, find_engine_sets
from samrt.errors import BackendError

BACKENDS = ("onnxruntime", *FLAVOURS)


@dataclass(frozen=True)
class Machine:
    """What decides whether an engine can run.

    Attributes:
        platform: operating system and processor.
        gpu: the GPU that was asked for, or None.
        versions: of the TensorRT flavours that can be imported.
        problems: of those that cannot, why; under "plugin", why samrt's plugin for TensorRT cannot be used.
    """

    platform: str
    gpu: Gpu | None
    versions: dict[str, str]
    problems: dict[str, str]


@dataclass(frozen=True)
class Choice:
    """What will run a bundle.

    Attributes:
        backend: one of `BACKENDS`.
        form: the precision and lowering of the graphs.
        engines: for the TensorRT backends.
        passed_over: engines that would have been taken before, each with the reason why not.
    """

    backend: str
    form: Form
    engines: EngineSet | None = None
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        built = self.engines.manifest if self.engines else None
        if built is None:
            return f"{self.backend}, {self.form.name}"
        compared = "" if built.verification else ", never compared with the bundle: `samrt build` here does that"
        return f"{self.backend} {built.version}, {self.form.name}{compared}"


def check_backend(name: str) -> None:
    """Raises BackendError where there is no backend of this name."""
    if name not in ("auto", *BACKENDS):
        raise BackendError(f"there is no backend {name!r}; choose one of auto, {', '.join(BACKENDS)}")


def choose(bundle: Bundle, backend: str = "auto", device: int = 0, precision: str | None = None) -> Choice:
    """What runs the bundle on this machine, found out without opening any of it.

    "auto" is the best engines in the bundle that fit the GPU, else ONNX Runtime on the CPU. `precision` is one of
    `PRECISIONS`; None: the best for what runs, which is the most exact on a CPU.

    Raises:
        BackendError: there is no backend or precision of this name, or no engines or form of it that fit; the message
            says why not.
    """
    check_backend(backend)
    if precision not in (None, *PRECISIONS):
        raise BackendError(f"there is no precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    held = [form.name for form in bundle.manifest.forms]
    if precision is not None and bundle.manifest.form(precision) is None:
        raise BackendError(
            f"{bundle.path} has no form of precision {precision}, it holds {', '.join(held)}; choose one of those, or "
            f"export the checkpoint in {precision} too"
        )
    passed_over: list[str] = []
    if backend != "onnxruntime":
        found = find_engine_sets(bundle.path)
        # Looking for a GPU takes a moment, so only where there is an engine to run on it.
        machine = this_machine(device) if found else None
        for engines in found:
            assert machine is not None
            if precision is not None and engines.manifest and engines.manifest.precision != precision:
                passed_over.append(f"{engines.folder.name}: {precision} was asked for")
                continue
            choice = _try(bundle, engines, backend, machine, passed_over)
            if choice is not None:
                return choice
    if backend in FLAVOURS:
        raise BackendError(_no_engines(bundle, backend, passed_over))
    form = _for_onnxruntime(bundle.manifest, (precision,) if precision else tuple(PRECISIONS))
    if form is None:
        raise BackendError(_no_form_for_onnxruntime(bundle, passed_over))
    return Choice("onnxruntime", form, passed_over=tuple(passed_over))


def _for_onnxruntime(bundle: Manifest, precisions: tuple[str, ...]) -> Form | None:
    """The form that ONNX Runtime runs, in the first of the `precisions` that has one without TensorRT's plugin."""
    forms = [form for form in bundle.forms if form.lowering != PLUGIN_LOWERING]
    return next((form for precision in precisions for form in forms if form.precision == precision), None)


def _no_form_for_onnxruntime(bundle: Bundle, passed_over: list[str]) -> str:
    held = ", ".join(form.name for form in bundle.manifest.forms)
    engines = f"; no engines in it can run here: {'; '.join(passed_over)}" if passed_over else ""
    return (
        f"{bundle.path} holds {held} only, whose attention is a plugin of TensorRT that ONNX Runtime does not have; "
        f"export the checkpoint with {EXPORT_WITH_PLUGIN} to have a form for each{engines}"
    )


def _try(bundle: Bundle, engines: EngineSet, backend: str, machine: Machine, passed_over: list[str]) -> Choice | None:
    built = engines.manifest
    if built is not None and backend not in ("auto", built.backend):
        return None
    reason = misfit(engines, bundle.manifest, machine)
    form = form_of(built, bundle.manifest) if built else None
    if reason or built is None or form is None:
        passed_over.append(f"{engines.folder.name}: {reason}")
        return None
    return Choice(built.backend, form, engines, tuple(passed_over))


def _no_engines(bundle: Bundle, backend: str, passed_over: list[str]) -> str:
    if passed_over:
        return f"no engines of {backend} in {bundle.path} can run here: {'; '.join(passed_over)}"
    if is_default(bundle.path):
        return (
            f"the model that comes with samrt has no engines; copy its folder, {bundle.path}, build them there with "
            f"`samrt build COPY --backend {backend}`, and name the copy"
        )
    return (
        f"{bundle.path} holds no engines of {backend}; build them with `samrt build {bundle.path} --backend {backend}`"
    )


def this_machine(device: int = 0) -> Machine:
    """What this machine has; `device` is the GPU's index. Where there is a GPU, TensorRT is imported."""
    gpu = next((gpu for gpu in find_gpus() if gpu.index == device), None)
    versions, problems = installed_flavours(), {}
    # The package's own word counts, as its metadata may say it in another form; without a GPU it does not matter.
    for name in list(versions) if gpu else ():
        try:
            versions[name] = import_flavour(name).version
        except BackendError as error:
            problems[name] = str(error)
    if gpu and versions.keys() - problems.keys():
        try:
            kernels = find_plugin()
        except BackendError as error:
            problems["plugin"] = str(error)
        else:
            if reason := why_not_for(kernels, gpu.compute_capability):
                problems["plugin"] = reason
    return Machine(platform_name(), gpu, versions, problems)


def misfit(engines: EngineSet, bundle: Manifest, machine: Machine) -> str:
    """Why these engines cannot run here, and what to do; empty when they can."""
    built = engines.manifest
    if built is None:
        return engines.problem
    again = f"build again with `samrt build --backend {built.backend}`"
    form = form_of(built, bundle)
    if form is None or built.sources != source_hashes(bundle, form):
        return f"built from other graphs than the bundle holds now; {again}"
    if built.platform != machine.platform:
        return f"built for {built.platform}, this is {machine.platform}; {again} here"
    return (
        _other_gpu(built, machine, again)
        or _other_version(built, machine, again)
        or _other_plugin(built, machine, again)
    )


def _other_version(built: EngineManifest, machine: Machine, again: str) -> str:
    if built.backend in machine.problems:
        return machine.problems[built.backend]
    version = machine.versions.get(built.backend)
    if version is None:
        return f"needs {built.backend} {built.version}, which is not installed; install it, see `samrt doctor`"
    # An engine is for one version alone, of either flavour.
    return "" if version == built.version else f"built with {built.backend} {built.version}, here is {version}; {again}"


def _other_plugin(built: EngineManifest, machine: Machine, again: str) -> str:
    if built.plugin is None:
        return ""
    if built.plugin != PLUGIN:
        return f"built with {built.plugin}, this samrt has {PLUGIN}; {again}"
    if built.backend == "tensorrt_rtx" and (reason := why_untried(built.version)):
        return reason
    return machine.problems.get("plugin", "")


def _other_gpu(built: EngineManifest, machine: Machine, again: str) -> str:
    gpu = machine.gpu
    if gpu is None:
        return "no NVIDIA GPU can be used here; see `samrt doctor`"
    if gpu.compute_capability in built.compute_capabilities:
        return ""
    return (
        f"built for compute capability {', '.join(built.compute_capabilities)}, {gpu.name} has "
        f"{gpu.compute_capability}; {again} on this machine"
    )


def form_of(engines: EngineManifest, bundle: Manifest) -> Form | None:
    """The form of the bundle that the engines were built from."""
    wanted = f"{engines.precision}-{engines.lowering}"
    return next((form for form in bundle.forms if form.name == wanted), None)


def source_hashes(bundle: Manifest, form: Form) -> dict[str, str]:
    """SHA-256 of each file that engines of this form are made from."""
    return {name: bundle.files[name].sha256 for name in bundle.files_of(form)}
