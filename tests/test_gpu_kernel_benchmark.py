"""The kernels in `benchmarks/gpu`, without a GPU: phases on the kernels' source on the host, and arithmetic."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kernel_builds import host_build, nvcc, sanitized_environment

_FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu"
sys.path.append(str(_FOLDER))

import attention_peers  # noqa: E402
import goals  # noqa: E402
import kernel_build  # noqa: E402
import kernel_checks  # noqa: E402
import planted_faults  # noqa: E402
import sanitized  # noqa: E402
import torch_attention  # noqa: E402
from kernel_library import AttentionKernel  # noqa: E402
from phases import kernels_build, kernels_correct, kernels_sanitizer  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from torch_attention import Case, dense, make_inputs  # noqa: E402
from work import NotHereError, Work, WrongResultError  # noqa: E402

from samrt_export.models.image_encoder_vit import Attention  # noqa: E402

_PHASES = ("kernels_build", "kernels_correct", "kernels_sanitizer", "kernels_time")


@pytest.fixture(scope="module")
def host_library() -> dict[str, str]:
    """The environment of a process that takes the kernels' source on the host for the kernels."""
    library = host_build() / "libsamrt_kernels_host.so"
    return {**sanitized_environment(), "SAMRT_KERNELS_LIBRARY": str(library), "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def smoke(host_library: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of a smoke run of the kernels' phases."""
    out = tmp_path_factory.mktemp("out") / "gpu.json"
    command = [sys.executable, str(_FOLDER / "run.py"), "--smoke", "--out", str(out), "--only", *_PHASES]
    ended = subprocess.run(command, env=host_library, capture_output=True, text=True, timeout=300, check=False)
    report: dict[str, Any] = json.loads(out.read_text())
    assert ended.returncode == 0, json.dumps(report, indent=1)
    return report["phases"]


def test_the_phases_run_on_the_host(smoke: dict[str, Any]) -> None:
    assert {name: phase["status"] for name, phase in smoke.items()} == {
        "kernels_build": "ok",
        "kernels_correct": "ok",
        "kernels_sanitizer": "skipped",
        "kernels_time": "ok",
    }
    assert smoke["kernels_build"]["result"]["library"]["architectures"] == ["host"]
    assert "gpu_ms" not in json.dumps(smoke)


def test_every_kernel_is_compared_with_the_truth(smoke: dict[str, Any]) -> None:
    result = smoke["kernels_correct"]["result"]
    lines = (_FOLDER.parents[1] / "kernels" / "attention" / "instances.def").read_text().splitlines()
    compiled = [line for line in lines if line.startswith("INSTANCE")]

    # And the table's choice, for two number formats and two head dimensions.
    assert len(result["attention"]) == len(compiled) + 4
    for outcomes in result["attention"].values():
        assert set(outcomes) == {case.name for case in torch_attention.SMALL_CASES}
        assert all(outcome["largest_error"] > 0 for outcome in outcomes.values())
    assert set(result["tests/kernels"]) == set(kernel_checks.MODULES)
    assert all(module["all_passed"] for module in result["tests/kernels"].values())


def test_every_contender_is_timed_and_no_goal_has_a_figure_without_a_gpu(smoke: dict[str, Any]) -> None:
    result = smoke["kernels_time"]["result"]

    assert len(result["attention"]) == 2
    for layer in result["attention"].values():
        peers = {goals.FLASH, goals.BIAS_READY, goals.BIAS_BUILT, attention_peers.AUGMENTED}
        assert set(layer["times"]) == {goals.TABLE, *peers}
        for times in layer["times"].values():
            assert times["relative_l2_to_float32"] < 0.002
            assert times["as called"]["wall_ms"]["min"] > 0
        assert layer["goals"]
        assert all((goal["got"], goal["met"]) == (None, None) for goal in layer["goals"])
    assert len(result["preprocessing"]) == 4
    assert len(result["postprocessing"]) == 4
    for job in (*result["preprocessing"].values(), *result["postprocessing"].values()):
        assert job["wall_ms"]["min"] > 0


def test_the_torch_operator_passes_its_checks(host_library: dict[str, str]) -> None:
    program = Path(__file__).resolve().parent / "kernels" / "check_torch_operator.py"
    command = [sys.executable, str(program), host_library["SAMRT_KERNELS_LIBRARY"]]
    ended = subprocess.run(command, env=host_library, capture_output=True, text=True, timeout=300, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("window", [0, 14])
def test_the_truth_is_the_encoder_s_attention(window: int) -> None:
    side, heads, head_dim = 20, 2, 64
    attention = Attention(heads * head_dim, head_dim, side, window).double()
    torch.manual_seed(0)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, side, side, heads * head_dim, dtype=torch.float64)
    with torch.inference_mode():
        inputs = torch_attention.Inputs(
            attention.qkv(x).unflatten(-1, (3, heads, head_dim)),
            attention.qkv.bias.view(3, heads, head_dim),
            attention.rel_pos_h,
            attention.rel_pos_w,
            window,
        )
        torch.testing.assert_close(attention.proj(dense(inputs)), attention(x))


@pytest.mark.parametrize("window", [0, 14])
def test_counts_the_operations_and_bytes_of_a_layer(window: int) -> None:
    inputs = make_inputs(Case("counted", 20, 24, window, batch=2, heads=3), "fp16", 80, True, "cpu")
    with FlopCounterMode(display=False) as counter:
        out = dense(inputs)
    tables = 2 * 80 * (2 * (2 * 14 - 1) if window else 2 * 20 - 1 + 2 * 24 - 1)

    assert attention_peers.operations(inputs) == counter.get_total_flops()
    assert attention_peers.moved_bytes(inputs) == 2 * 4 * out.numel() + 2 * 3 * 3 * 80 + tables


def _of_torch(window: int) -> tuple[torch_attention.Inputs, dict[str, Any]]:
    """A layer in float64 and torch's calls for it that have a bias."""
    side = 20 if window else 9
    inputs = make_inputs(Case("peers", side, side, window, batch=2), "fp16", 64, True, "cpu").to(torch.float64)
    makers = attention_peers.of_torch(inputs)
    names = (goals.BIAS_READY, goals.BIAS_BUILT, attention_peers.AUGMENTED)
    return inputs, {name: makers[name]() for name in names}


@pytest.mark.parametrize("window", [0, 14])
def test_torch_s_forms_are_the_definition(window: int) -> None:
    inputs, calls = _of_torch(window)
    for name, call in calls.items():
        torch.testing.assert_close(call(), dense(inputs), msg=lambda text, name=name: f"{name}: {text}")


class _Operators(TorchDispatchMode):
    """The names of torch's operators that were called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("window", [0, 14])
def test_torch_is_not_timed_with_what_it_can_have_before(window: int) -> None:
    for name, call in _of_torch(window)[1].items():
        with _Operators() as called:
            call()
        assert any("attention" in operator for operator in called.names), name
        assert not called.names & {"arange", "index", "eye", "one_hot", "scatter_", "zeros", "new_zeros"}, name
        assert ("add" in called.names) == (name == goals.BIAS_BUILT), name


@pytest.mark.parametrize("window", [0, 14])
def test_torch_gets_a_ready_bias_as_its_kernel_takes_it(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = []

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: torch.Tensor) -> torch.Tensor:
        masks.append(attn_mask)
        return v

    call = _of_torch(window)[1][goals.BIAS_READY]
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    call()

    tokens = (window or 9) ** 2
    assert [mask.shape[-2:] for mask in masks] == [(tokens, tokens)]
    assert masks[0].stride(-1) == 1
    assert all(stride % 8 == 0 for stride in masks[0].stride()[:-1])


def test_goals_are_ratios_of_what_was_measured() -> None:
    times = {
        goals.TABLE: 1.0,
        f"{goals.NO_BIAS}, a": 0.97,
        f"{goals.NO_BIAS}, b": 0.9,
        goals.FLASH: 0.99,
        goals.BIAS_BUILT: 5.5,
        goals.BIAS_READY: 4.9,
    }
    figures = [(goal["got"], goal["met"]) for goal in goals.of_layer(False, times)]

    assert figures == [(1.1111, False), (0.99, False), (5.5, True), (4.9, False)]
    assert [goal["got"] for goal in goals.of_layer(True, times)] == [5.5, 4.9]
    assert goals.of_image_kernel(0.003, 0.002) == [
        {"name": "time over the bandwidth floor", "wanted": "at most 1.5", "got": 1.5, "met": True}
    ]


def test_a_goal_whose_times_are_missing_has_no_figure() -> None:
    for goal in (
        *goals.of_layer(False, {goals.TABLE: 1.0}),
        *goals.of_layer(
            False, {goals.FLASH: 1.0, f"{goals.NO_BIAS}, a": 1.0, goals.BIAS_BUILT: 9.0, goals.BIAS_READY: 9.0}
        ),
        *goals.of_layer(True, {}),
        *goals.of_image_kernel(1.0, None),
    ):
        assert (goal["got"], goal["met"]) == (None, None), goal


def _kernel(tile: int) -> AttentionKernel:
    return AttentionKernel("fp16", 64, tile, f"t{tile}", True)


def test_only_kernels_that_were_found_correct_are_timed(tmp_path: Path) -> None:
    work = Work(tmp_path, "kernels_correct", smoke=False, deadline=0)
    good, bad, unknown = _kernel(0), _kernel(1), _kernel(2)
    work.record("attention", str(good), value={"a": {"largest_error": 0.0}, "b": {"absent": "shared memory"}})
    work.record("attention", str(bad), value={"a": {"largest_error": 0.0}, "b": {"error": "off"}})
    with pytest.raises(NotHereError, match="did not run to its end"):
        kernels_correct.found_correct(work, [good])
    work.record("wrong", value=["bad"])

    assert kernels_correct.found_correct(work, [good, bad, unknown]) == [good]


@pytest.mark.parametrize(
    ("code", "said", "verdict"),
    [
        (0, "ran to the end\n========= ERROR SUMMARY: 0 errors", "clean"),
        (0, "ran to the end\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", "clean"),
        (77, "========= Invalid __global__ read\nran to the end\n========= ERROR SUMMARY: 1 error", "found"),
        (77, "ran to the end\n========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)", "found"),
        (0, "left out check_image: no cv2\nran to the end\n========= ERROR SUMMARY: 0 errors", "clean in part"),
        (77, "left out check_image: no cv2\n========= ERROR SUMMARY: 1 error", "found"),
        # A warning is no error to the tool, and no clean run to us.
        (0, "ran to the end\n========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)", "failed"),
        (0, "========= ERROR SUMMARY: 0 errors", "failed"),
        (0, "ran to the end", "failed"),
        (1, "Traceback\n========= ERROR SUMMARY: 0 errors", "failed"),
        (255, "========= Error: Target application terminated before first instrumented API call", "failed"),
        (None, "did not end within 50 s", "failed"),
    ],
)
def test_judges_a_run_under_the_sanitizer(code: int | None, said: str, verdict: str) -> None:
    assert kernels_sanitizer.judge_kernels(code, said)["verdict"] == verdict


def test_a_planted_fault_is_found_by_its_own_report_only() -> None:
    for name, fault in planted_faults.FAULTS.items():
        assert kernels_sanitizer.judge_planted(name, 77, f"========= {fault.report} of size 4")["verdict"] == "found"
        assert kernels_sanitizer.judge_planted(name, 0, f"========= {fault.report} of size 4")["verdict"] == "missed"
        assert (
            kernels_sanitizer.judge_planted(name, 77, "Program hit error 999 on CUDA API call")["verdict"] == "missed"
        )


@pytest.mark.parametrize(
    ("planted", "kernels", "outcome", "text"),
    [
        (("found", "found"), ("clean", "clean"), None, ""),
        (("found", "found"), ("clean", "found"), WrongResultError, "racecheck: found"),
        (("found", "found"), ("failed", "clean"), WrongResultError, "memcheck: failed"),
        (("found", "missed"), ("clean", "clean"), WrongResultError, "racecheck: missed the fault"),
        (("found", "found"), ("clean", "clean in part"), WrongResultError, "racecheck: clean in part"),
        (("missed", "missed"), ("failed", "failed"), NotHereError, "does not work on this device"),
        (("missed", "missed"), ("clean", "clean in part"), NotHereError, "does not work on this device"),
        # Its planted fault may be reported in words that a new version changed; what it found in ours is no less true.
        (("missed", "missed"), ("found", "clean"), WrongResultError, "memcheck: found; memcheck: missed the fault"),
    ],
)
def test_the_sanitizer_passes_only_where_it_sees(
    tmp_path: Path, planted: tuple[str, ...], kernels: tuple[str, ...], outcome: Any, text: str
) -> None:
    work = Work(tmp_path, "kernels_sanitizer", smoke=False, deadline=0)
    for name, found, of_kernels in zip(("memcheck", "racecheck"), planted, kernels, strict=True):
        work.record("tools", name, value={"planted": {"verdict": found}, "kernels": {"verdict": of_kernels}})
    if outcome is None:
        kernels_sanitizer._conclude(work)
        return
    with pytest.raises(outcome, match=text):
        kernels_sanitizer._conclude(work)


_TOOL = """#!/bin/sh
case "$*" in
  --version) echo "a stand-in" ;;
  "--tool "*" --error-exitcode 77 --port "*" kernels x")
    echo "ran to the end"; echo "ERROR SUMMARY: 0 errors" ;;
  *" planted memcheck") echo "Invalid __global__ write"; exit 77 ;;
  *" planted racecheck") echo "Race reported between"; exit 77 ;;
  *" planted initcheck") echo "Uninitialized __global__ memory read"; exit 77 ;;
esac
"""


_IN_PART = _TOOL.replace('echo "ran', 'echo "left out b: c"; echo "ran')


@pytest.mark.parametrize(
    ("tool", "kernels", "error", "text"),
    [
        (_TOOL, {"verdict": "clean"}, None, ""),
        (
            _IN_PART,
            {"verdict": "clean in part", "left_out": ["b: c"]},
            WrongResultError,
            "memcheck: clean in part, left out b: c; racecheck: clean in part",
        ),
        ("#!/bin/sh\necho Device not supported\nexit 255\n", None, NotHereError, "does not work on this device"),
    ],
)
def test_runs_each_tool_on_its_fault_and_on_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, kernels: Any, error: Any, text: str
) -> None:
    (tmp_path / "compute-sanitizer").write_text(tool)
    (tmp_path / "compute-sanitizer").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kernels_sanitizer.kernel_library, "use", lambda work: SimpleNamespace(path=Path("x")))
    work = Work(tmp_path, "kernels_sanitizer", smoke=False, deadline=time.monotonic() + 60)
    with contextlib.nullcontext() if error is None else pytest.raises(error, match=text):
        kernels_sanitizer.run(work)

    if kernels is not None:
        runs = {"planted": {"verdict": "found"}, "kernels": kernels}
        assert work.of("kernels_sanitizer")["tools"] == dict.fromkeys(planted_faults.FAULTS, runs)


def test_a_program_that_ran_no_kernel_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(module: str) -> list[str]:
        raise ImportError(f"no package for {module}")

    monkeypatch.setattr(kernel_checks, "names", missing)
    monkeypatch.setattr(sanitized, "Driver", lambda: None)
    monkeypatch.setattr("samrt.kernels.load_kernels", lambda path: None)
    with pytest.raises(SystemExit) as ended:
        sanitized.main("kernels", "x")
    said = capsys.readouterr().out

    assert "no kernel ran" in str(ended.value)
    assert said.count("left out") == len(sanitized.SMALL)
    assert "ran to the end" not in said


def test_a_missing_sanitizer_is_a_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_sanitizer, "find", lambda: None)
    monkeypatch.setattr(kernels_sanitizer.kernel_library, "use", lambda work: SimpleNamespace(path=Path("x")))
    with pytest.raises(NotHereError, match="there is no compute-sanitizer here"):
        kernels_sanitizer.run(Work(tmp_path, "kernels_sanitizer", smoke=False, deadline=0))


def test_takes_the_sanitizer_from_an_unpacked_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "nvidia" / "cu13" / "compute-sanitizer"
    folder.mkdir(parents=True)
    (folder / "compute-sanitizer").write_text("#!/bin/sh\necho from a wheel\n")
    monkeypatch.setattr(kernels_sanitizer.shutil, "which", lambda *args, **named: None)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = kernels_sanitizer.find()

    assert found is not None
    assert subprocess.run([found], capture_output=True, text=True, check=True).stdout == "from a wheel\n"


@pytest.mark.parametrize("module", kernel_checks.MODULES)
def test_what_the_sanitizer_watches_is_there(module: str) -> None:
    assert sanitized.SMALL[module]
    assert set(sanitized.SMALL[module]) <= set(kernel_checks.names(module))


@pytest.mark.parametrize("tool", planted_faults.FAULTS)
def test_planted_faults_are_valid_ptx(tmp_path: Path, tool: str) -> None:
    ptxas = Path(nvcc()).parent / "ptxas"
    source = tmp_path / "planted.ptx"
    source.write_text(planted_faults.FAULTS[tool].ptx)
    command = [ptxas, "-arch=sm_90", source, "-o", tmp_path / "planted.cubin"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr


class _Device:
    def describe(self) -> dict[str, str]:
        return {"compute_capability": "9.0"}


@pytest.fixture
def building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A run of the phase kernels_build on a device of 9.0, without a compiler, where any file is a library."""

    def load(path: Path) -> Any:
        return SimpleNamespace(path=path, architectures=("90",), attention_tiles=lambda: ("a",))

    def build(*_: Any) -> Path:
        raise kernel_build.NoCompilerError("there is no cmake")

    monkeypatch.delenv("SAMRT_KERNELS_LIBRARY", raising=False)
    monkeypatch.setattr(kernels_build, "load_kernels", load)
    monkeypatch.setattr(kernels_build, "Driver", _Device)
    monkeypatch.setattr(kernels_build, "build", build)
    monkeypatch.setattr(kernels_build, "LIBRARY_FOLDER", tmp_path / "lib")
    return Work(tmp_path, "kernels_build", smoke=False, deadline=0)


def test_without_a_compiler_it_takes_the_library_in_the_checkout(building: Work, tmp_path: Path) -> None:
    with pytest.raises(NotHereError, match="there is no cmake"):
        kernels_build.run(building)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libsamrt_kernels.so").write_bytes(b"library")
    kernels_build.run(building)
    found = building.of("kernels_build")["library"]

    assert (found["bytes"], found["architectures"]) == (7, ["90"])
    assert found["origin"] == "compiled elsewhere, before this run: there is no cmake here"


def test_with_a_compiler_it_compiles_for_the_device(
    building: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libsamrt_kernels.so").write_bytes(b"an old one")
    asked = []

    def build(folder: Path, architecture: str, seconds: float) -> Path:
        asked.append(architecture)
        (tmp_path / "fresh.so").write_bytes(b"fresh")
        return tmp_path / "fresh.so"

    monkeypatch.setattr(kernels_build, "build", build)
    kernels_build.run(building)
    found = building.of("kernels_build")["library"]

    assert asked == ["90"]
    assert (found["path"], found["origin"]) == (str(tmp_path / "fresh.so"), "compiled from this checkout")


def test_a_failed_compilation_is_no_reason_to_take_an_old_library(
    building: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libsamrt_kernels.so").write_bytes(b"an old one")

    def build(*_: Any) -> Path:
        raise RuntimeError("cmake --build ended with 1")

    monkeypatch.setattr(kernels_build, "build", build)
    with pytest.raises(RuntimeError, match="ended with 1"):
        kernels_build.run(building)
    assert building.of("kernels_build") == {}


def test_a_library_that_is_named_is_taken(building: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named.so").write_bytes(b"named")
    monkeypatch.setenv("SAMRT_KERNELS_LIBRARY", str(tmp_path / "named.so"))
    kernels_build.run(building)

    assert building.of("kernels_build")["library"]["origin"] == "named by SAMRT_KERNELS_LIBRARY"
