"""Building engines with the TensorRT-RTX that is installed; without a GPU they can be built, not opened."""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy_builds import build_toy, toy_ranges

import samrt.device.gpus
from samrt.bundle.contract import Graph
from samrt.device.gpus import Gpu
from samrt.engines.builder import engine as build_module
from samrt.engines.builder import monitor
from samrt.engines.builder.engine import BuildOptions, BuiltEngine, build_engine
from samrt.engines.builder.targets import Targets, choose_targets
from samrt.engines.flavours import Flavour
from samrt.engines.profiles import BuildLimits, Range, ranges
from samrt.errors import BackendError, BundleError, InputError
from samrt.progress import SILENT, Lines

pytest_plugins = ("toy_fixtures", "tensorrt_fixtures")
pytestmark = pytest.mark.usefixtures("without_gpu")
ADA = Gpu(0, "a GPU", "8.9", 8 << 30)
Encoder = Callable[[str], tuple[Path, Graph]]


@pytest.fixture
def watched(rtx: Flavour) -> tuple[Flavour, list[Any]]:
    """TensorRT-RTX, and what each of its builds was asked for."""
    asked: list[Any] = []
    trt = rtx.module

    class Builder(trt.Builder):  # type: ignore[misc, name-defined]
        def create_optimization_profile(self) -> Any:
            self.profile = super().create_optimization_profile()
            return self.profile

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            shapes = {}
            for index in range(network.num_inputs):
                name = network.get_input(index).name
                shapes[name] = tuple(map(tuple, self.profile.get_shape(name)))
            asked.append(
                SimpleNamespace(
                    tf32=config.get_flag(trt.BuilderFlag.TF32),
                    workspace=config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE),
                    targets=[config.get_compute_capability(i).name for i in range(config.num_compute_capabilities)],
                    shapes=shapes,
                )
            )
            return super().build_serialized_network(network, config)

    return Flavour(rtx.name, SimpleNamespace(**{**vars(trt), "Builder": Builder}), rtx.version), asked


def test_a_vit_encoder(rtx: Flavour, small_encoder: Encoder) -> None:
    path, graph = small_encoder("augmented")
    lines: list[str] = []
    built = build_engine(rtx, path, ranges(graph, BuildLimits(max_batch=2)), BuildOptions(), Lines(lines.append))
    assert lines[0] == "building encoder: reading encoder.onnx"
    weights = (path.parent / "encoder.weights").stat().st_size
    assert len(built.plan) == built.memory["plan_bytes"] > weights
    assert built.plan.format == "B"
    assert built.memory["weights_bytes"] > weights // 2
    # The tokens of the global layer, at least.
    assert built.memory["activation_bytes"] >= built.memory["scratch_bytes"] > 2 * 400 * 64 * 4
    assert built.seconds > 0
    assert built.compute_capabilities == ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert built.warnings == ()


def test_what_tensorrt_is_asked_for(watched: tuple[Flavour, list[Any]], toy_bundle: Path) -> None:
    flavour, asked = watched
    built = build_toy(flavour, toy_bundle, compute_capabilities=("12.0", "8.6", "12.0"), workspace_mib=64)
    assert built.compute_capabilities == ("12.0", "8.6")
    assert asked[0].targets == ["SM120", "SM86"]
    assert asked[0].workspace == 64 << 20
    assert asked[0].tf32 is False
    assert asked[0].shapes == {
        name: (shapes.minimum, shapes.optimum, shapes.maximum) for name, shapes in toy_ranges("mask_decoder").items()
    }


def test_more_prompts_take_more_memory(rtx: Flavour, toy_bundle: Path) -> None:
    scratch = [
        build_engine(
            rtx, toy_bundle / "decoder.onnx", toy_ranges("mask_decoder", max_prompts=n), BuildOptions(), SILENT
        ).memory["activation_bytes"]
        for n in (1, 64)
    ]
    assert scratch[1] > 8 * scratch[0]


def test_a_path_of_any_letters(rtx: Flavour, toy_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(toy_bundle, tmp_path / "Ünï códe 模型")
    assert build_toy(rtx, folder, "image_encoder").plan.nbytes > 0


def test_two_builds_at_once(rtx: Flavour, toy_bundle: Path) -> None:
    path = toy_bundle / "decoder.onnx"
    both = threading.Barrier(2)

    def work(prompts: int) -> BuiltEngine:
        both.wait()
        return build_engine(rtx, path, toy_ranges("mask_decoder", max_prompts=prompts), BuildOptions(), SILENT)

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(work, (1, 64)))
    for prompts, one in zip((1, 64), together, strict=True):
        alone = build_engine(rtx, path, toy_ranges("mask_decoder", max_prompts=prompts), BuildOptions(), SILENT)
        assert one.warnings == ()
        for figure in ("scratch_bytes", "activation_bytes"):
            assert one.memory[figure] == alone.memory[figure]


@pytest.fixture
def slow(rtx: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds whose first steps last long enough to be seen, however busy the machine is."""
    monitor_class = type(build_module.build_monitor(rtx))

    class SlowMonitor(monitor_class):  # type: ignore[misc, valid-type]
        def step_complete(self, phase: str, step: int) -> bool:
            if step < 5:
                time.sleep(0.1)
            return bool(super().step_complete(phase, step))

    monkeypatch.setattr(build_module, "build_monitor", lambda _: SlowMonitor())
    monkeypatch.setattr(monitor, "_PERIOD", 0.002)


@pytest.mark.usefixtures("slow")
def test_progress(rtx: Flavour, small_encoder: Encoder) -> None:
    path, graph = small_encoder("augmented")
    lines: list[tuple[str, str]] = []
    build_engine(
        rtx,
        path,
        ranges(graph, BuildLimits()),
        BuildOptions(),
        Lines(lambda line: lines.append((line, threading.current_thread().name))),
    )
    steps = [line for line, _ in lines[1:]]
    assert steps
    assert all(line.startswith("building encoder: ") and line.endswith("%") for line in steps)
    assert all(before != after for before, after in pairwise(steps))
    assert {thread for _, thread in lines} == {threading.current_thread().name}


@pytest.fixture
def loggers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The loggers of the builds of a test."""
    made: list[Any] = []

    def collecting(flavour: Flavour) -> Any:
        made.append(build_logger(flavour))
        return made[-1]

    build_logger = build_module.collecting_logger
    monkeypatch.setattr(build_module, "collecting_logger", collecting)
    return made


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process that a shell started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible", "slow")
def test_ctrl_c_aborts_the_build(rtx: Flavour, small_encoder: Encoder, loggers: list[Any]) -> None:
    path, graph = small_encoder("augmented")

    def press(line: str) -> None:
        if "reading" not in line:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build_engine(rtx, path, ranges(graph, BuildLimits()), BuildOptions(), Lines(press))
    assert any("BuildCanceled" in line for line in loggers[0].errors)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("samrt-build")]
    assert build_engine(rtx, path, ranges(graph, BuildLimits()), BuildOptions(), SILENT).plan.nbytes > 0


@pytest.mark.usefixtures("slow")
def test_an_exception_out_of_progress_aborts_the_build(
    rtx: Flavour, small_encoder: Encoder, loggers: list[Any]
) -> None:
    path, graph = small_encoder("augmented")

    def fail(line: str) -> None:
        if "reading" not in line:
            raise BrokenPipeError("nobody reads this")

    with pytest.raises(BrokenPipeError):
        build_engine(rtx, path, ranges(graph, BuildLimits()), BuildOptions(), Lines(fail))
    assert any("BuildCanceled" in line for line in loggers[0].errors)


def test_a_workspace_that_is_too_small(rtx: Flavour, small_encoder: Encoder) -> None:
    path, graph = small_encoder("augmented")
    with pytest.raises(BackendError, match=r"cannot build .*; the workspace of 1 MiB is too small: raise it"):
        build_engine(rtx, path, ranges(graph, BuildLimits()), BuildOptions(workspace_mib=1), SILENT)


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_a_workspace_that_makes_no_sense(value: Any) -> None:
    with pytest.raises(InputError, match="the workspace must be a whole number of MiB"):
        BuildOptions(workspace_mib=value)
    with pytest.raises(InputError, match="the memory limit must be a whole number of MiB"):
        BuildOptions(memory_limit_mib=value)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "1"])
def test_a_time_limit_that_makes_no_sense(value: Any) -> None:
    with pytest.raises(InputError, match="the time limit must be a positive number of seconds"):
        BuildOptions(time_limit_s=value)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [(("8.6", "9.0"), r"for '9\.0'; choose among 7\.5, 8\.0"), ((), "no compute capability"), (("sm_89",), "'sm_89'")],
)
def test_unknown_compute_capabilities(wanted: tuple[str, ...], said: str, rtx: Flavour, toy_bundle: Path) -> None:
    with pytest.raises(InputError, match=said):
        build_toy(rtx, toy_bundle, compute_capabilities=wanted)


def test_turing_has_no_float32_products(rtx: Flavour, small_encoder: Encoder) -> None:
    path, graph = small_encoder("augmented")
    with pytest.raises(BackendError, match=r"Turing.*leave 7\.5 out"):
        build_engine(rtx, path, ranges(graph, BuildLimits()), BuildOptions(compute_capabilities=("7.5",)), SILENT)


def test_rtx_builds_for_the_gpu_at_hand(rtx: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samrt.device.gpus, "find_gpus", lambda: [ADA])
    assert choose_targets(rtx, None) == Targets(("8.9",), (rtx.module.ComputeCapability.CURRENT,))
    assert choose_targets(rtx, ("8.6",)) == Targets(("8.6",), (rtx.module.ComputeCapability.SM86,))


def test_inputs_that_are_not_the_manifests(rtx: Flavour, toy_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"encoder\.onnx has the inputs image, the manifest says image_embeddings"):
        build_engine(rtx, toy_bundle / "encoder.onnx", toy_ranges("mask_decoder"), BuildOptions(), SILENT)
    wrong = {"image": Range((1, 3, 32, 32), (1, 3, 32, 32), (1, 3, 32, 32))}
    with pytest.raises(BundleError, match=r"'image' of .* has the shape \[-1, 3, 64, 64\], which \[1, 3, 32, 32\]"):
        build_engine(rtx, toy_bundle / "encoder.onnx", wrong, BuildOptions(), SILENT)


def test_a_failed_builds_error_holds_no_builder(
    rtx: Flavour, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it is freed by the garbage collector in a logger's callback, where TensorRT waits for itself."""
    made: list[weakref.ref[Any]] = []

    class Remembered(rtx.module.Builder):  # type: ignore[misc, name-defined]
        def __init__(self, logger: Any) -> None:
            super().__init__(logger)
            made.append(weakref.ref(self))

    monkeypatch.setattr(rtx.module, "Builder", Remembered)
    with pytest.raises(BundleError, match="has the inputs image") as caught:
        build_engine(rtx, toy_bundle / "encoder.onnx", toy_ranges("mask_decoder"), BuildOptions(), SILENT)
    assert [builder() for builder in made] == [None]
    assert caught.value.__traceback__ is not None
