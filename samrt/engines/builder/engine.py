"""From an ONNX graph to a serialised engine."""

from __future__ import annotations

import gc
import math
import os
import re
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samrt.engines.builder.monitor import build_monitor, run_watched
from samrt.engines.builder.network import parse
from samrt.engines.builder.targets import Targets, choose_targets, set_targets
from samrt.engines.flavours import Flavour
from samrt.engines.logger import collecting_logger, log_here
from samrt.engines.profiles import Range
from samrt.errors import BackendError, BundleError, InputError, OutputError, Remedy
from samrt.files import check_target, replacing_file
from samrt.progress import Progress

# An engine cannot be asked before it is on a GPU, so its figures are read where the builder prints them.
_FIGURES = {
    "scratch_bytes": re.compile(r"Max Scratch Memory: (\d+)"),
    "activation_bytes": re.compile(r"Total Activation Memory: (\d+)"),
    "weights_bytes": re.compile(r"Total Weights Memory: (\d+)"),
    "persistent_bytes": re.compile(r"Total Device Persistent Memory: (\d+)"),
}
_LARGEST_MIB = 1 << 20  # 1 TiB
# Stock TensorRT times kernels for tens of minutes on a small Jetson.
_SECONDS = 4 * 3600.0
# Said when two builds run at once; each still gets the messages of its own build.
_NOISE = "differs from one already registered"


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        compute_capabilities: the GPUs to build for, as "8.9"; None for the GPU at hand, or where there is none, for all
            that TensorRT-RTX knows but Turing (7.5).
        workspace_mib: the most working memory, in MiB, that a layer may ask for; None for TensorRT's own limit.
        timing_cache: a file of stock TensorRT's measurements of kernels, read if it is there and written anew, which
            shorten the next build.
        overwrite: make the timing cache anew where the file that is there is none that this TensorRT and GPU take.
        memory_limit_mib: the most host memory, in MiB, that the process which builds an engine may take; None for nine
            tenths of what is free when it begins. Kept on Linux.
        time_limit_s: seconds that the build of one engine may take.

    Raises:
        InputError: the workspace or the memory limit is less than 1 MiB, more than 1 TiB, or not a whole number; the
            time limit is not a positive number.
    """

    compute_capabilities: tuple[str, ...] | None = None
    workspace_mib: int | None = None
    timing_cache: str | os.PathLike[str] | None = None
    overwrite: bool = False
    memory_limit_mib: int | None = None
    time_limit_s: float = _SECONDS

    def __post_init__(self) -> None:
        if isinstance(self.compute_capabilities, str):
            raise InputError(f"compute_capabilities must be a tuple, such as ({self.compute_capabilities!r},)")
        for name, mib in (("workspace", self.workspace_mib), ("memory limit", self.memory_limit_mib)):
            if mib is not None and (not isinstance(mib, int) or isinstance(mib, bool) or not 1 <= mib <= _LARGEST_MIB):
                raise InputError(f"the {name} must be a whole number of MiB from 1 to {_LARGEST_MIB}, not {mib!r}")
        seconds = self.time_limit_s
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise InputError(f"the time limit must be a positive number of seconds, not {seconds!r}")


@dataclass(frozen=True)
class BuiltEngine:
    """A serialised engine and what is known of it.

    `plan`: uint8 memory of TensorRT's, valid as long as this is kept. `memory`: bytes on the GPU as TensorRT reported
    them (`scratch_bytes`, `activation_bytes`, `weights_bytes`, `persistent_bytes`), and `plan_bytes`. `seconds`: from
    reading the graph to the plan. `warnings`: TensorRT's own words.
    """

    plan: memoryview
    memory: dict[str, int]
    seconds: float
    compute_capabilities: tuple[str, ...]
    warnings: tuple[str, ...]


def build_engine(
    flavour: Flavour, onnx: Path, ranges: Mapping[str, Range], options: BuildOptions, progress: Progress
) -> BuiltEngine:
    """Build the graph at `onnx` for inputs in `ranges` (`samrt.engines.profiles.ranges`).

    `progress` gets a line about once a second, in the calling thread. Ctrl-C, or an exception out of `progress`, stops
    the build and is raised again. Several builds may run at once, in several threads.

    Raises:
        BackendError: TensorRT cannot build the graph, or finds no GPU where it needs one.
        BundleError: the file or its weights are missing or damaged, or its inputs are not those of `ranges`.
        InputError: the flavour cannot follow an option.
        OutputError: the timing cache cannot be written.
    """
    if options.timing_cache is not None:
        if flavour.is_rtx:
            raise InputError(
                "TensorRT-RTX times no kernels while it builds, so it has no timing cache; leave that option out"
            )
        check_target(options.timing_cache)
    targets = choose_targets(flavour, options.compute_capabilities)
    # "encoder" of encoder.fp16-augmented.onnx
    title = f"building {onnx.name.split('.')[0]}"
    progress.say(f"{title}: reading {onnx.name}")
    # Python's side of both must outlive whatever TensorRT holds them.
    logger, monitor = collecting_logger(flavour), build_monitor(flavour)
    build = _Build(flavour, logger, monitor, options, targets)
    begin = time.monotonic()
    notes: list[str] = []
    try:
        plan = run_watched(lambda: build.run(onnx, ranges, notes), monitor, title, progress)
    except BaseException as error:
        _forget_frames(error)
        raise
    for note in notes:
        progress.say(f"{title}: {note}")
    return BuiltEngine(
        plan=plan,
        memory={**_figures(logger.info), "plan_bytes": plan.nbytes},
        seconds=time.monotonic() - begin,
        compute_capabilities=targets.compute_capabilities,
        warnings=tuple(line for line in logger.warnings if _NOISE not in line),
    )


def _forget_frames(error: BaseException | None) -> None:
    """Free what a failed build's frames hold, its builder above all, which else lives as long as the error.

    Python may collect garbage whenever TensorRT calls the logger. While it makes a builder it does so under a lock
    that a builder's end waits for too: an old one freed there would stop the process for good.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


@dataclass(frozen=True)
class _Build:
    """One build's objects; `run` is called in the build's own thread."""

    flavour: Flavour
    logger: Any
    monitor: Any
    options: BuildOptions
    targets: Targets

    def run(self, onnx: Path, ranges: Mapping[str, Range], notes: list[str]) -> memoryview:
        log_here(self.logger)
        builder = self._builder()
        parsed = parse(self.flavour, self.logger, onnx, builder)
        config = self._config(builder)
        config.add_optimization_profile(_profile(builder, parsed.network, onnx, ranges))
        if self.options.timing_cache is not None:
            notes += self._read_timing_cache(config, Path(self.options.timing_cache))
        plan = builder.build_serialized_network(parsed.network, config)
        if plan is None:
            raise self._failure(onnx)
        if self.options.timing_cache is not None:
            with replacing_file(self.options.timing_cache) as temporary:
                temporary.write_bytes(config.get_timing_cache().serialize())
        # The buffer calls its bytes floats.
        return memoryview(plan).cast("B")

    def _builder(self) -> Any:
        gc.collect()  # builders of others that are garbage, as in _forget_frames
        try:
            return self.flavour.module.Builder(self.logger)
        except Exception as error:  # the bindings raise TypeError where the library returns nothing
            said = "; ".join(self.logger.errors) or str(error)
            raise BackendError(
                f"{self.flavour.title} cannot start its builder: {said}; it needs an NVIDIA GPU and a driver that fits "
                "its CUDA version: check with `nvidia-smi`, or build with tensorrt_rtx, which needs neither"
            ) from error

    def _config(self, builder: Any) -> Any:
        trt = self.flavour.module
        config = builder.create_builder_config()
        # On by default, in both flavours: it would round the factors of float32 products to 10 bits behind the graph's
        # back, and fp32 is the precision of those who want to compare. fp16 is in the graph, and not touched by it.
        config.clear_flag(trt.BuilderFlag.TF32)
        if self.options.workspace_mib is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self.options.workspace_mib << 20)
        if self.flavour.is_rtx:
            set_targets(config, self.targets)
        config.progress_monitor = self.monitor
        return config

    def _read_timing_cache(self, config: Any, path: Path) -> list[str]:
        """Returns what to tell the user."""
        before = len(self.logger.errors) + len(self.logger.warnings)
        cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
        # A cache of another version is refused by one call or the other, or replaced by an empty one with a warning.
        taken = cache is not None and config.set_timing_cache(cache, False)
        if taken and len(self.logger.errors) + len(self.logger.warnings) == before:
            return []
        if path.exists() and path.stat().st_size and not self.options.overwrite:
            self.logger.errors.clear()
            raise OutputError(
                f"{path} is no timing cache, is damaged, or is of another TensorRT or GPU",
                Remedy(
                    "name another file with {timing_cache}, or have it made anew with {overwrite}", {"overwrite": True}
                ),
            )
        if not taken:
            config.set_timing_cache(config.create_timing_cache(b""), False)
        # Told here, and no reason of a failure that may follow.
        self.logger.errors.clear()
        return [f"the timing cache {path} is damaged, or of another TensorRT or GPU; it was made anew"]

    def _failure(self, onnx: Path) -> BackendError:
        said = "; ".join(self.logger.errors) or "it gave no reason"
        return BackendError(f"{self.flavour.title} cannot build {onnx}: {said}", self._remedy(said))

    def _remedy(self, said: str) -> Remedy:
        if re.search(r"OutOfMemory|out of memory|workspace|insufficient memory", said, re.IGNORECASE):
            if self.options.workspace_mib is not None:
                return Remedy(
                    f"the workspace of {self.options.workspace_mib} MiB is too small: raise it, or leave it out"
                )
            return Remedy("free memory, or build with a smaller {max_batch}, {max_prompts} or {max_points}")
        if "Turing" in said:
            return Remedy("leave 7.5 out of the compute capabilities, or use stock TensorRT on that GPU")
        if "cudaError" in said:
            return Remedy("check the driver with `nvidia-smi`")
        return Remedy("export the checkpoint again with another {lowering}, or use another version of TensorRT")


def _profile(builder: Any, network: Any, onnx: Path, ranges: Mapping[str, Range]) -> Any:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    if {tensor.name for tensor in inputs} != set(ranges):
        raise BundleError(
            f"{onnx} has the inputs {', '.join(t.name for t in inputs)}, the manifest says {', '.join(ranges)}; "
            "export the checkpoint again"
        )
    profile = builder.create_optimization_profile()
    for tensor in inputs:
        shapes = ranges[tensor.name]
        declared = tuple(tensor.shape)
        for shape in (shapes.minimum, shapes.optimum, shapes.maximum):
            if len(shape) != len(declared) or any(d not in (-1, n) for d, n in zip(declared, shape, strict=True)):
                raise BundleError(
                    f"the input {tensor.name!r} of {onnx} has the shape {list(declared)}, which {list(shape)} does not "
                    "fit; export the checkpoint again"
                )
        profile.set_shape(tensor.name, shapes.minimum, shapes.optimum, shapes.maximum)
    return profile


def _figures(lines: list[str]) -> dict[str, int]:
    figures = {}
    for name, pattern in _FIGURES.items():
        found = [int(match[1]) for match in map(pattern.search, lines) if match]
        if found:
            figures[name] = found[-1]
    return figures
