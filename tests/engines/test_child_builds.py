"""Builds in a child process: what the child does wrong is an error here, and nothing of it is left."""

from __future__ import annotations

import errno
import multiprocessing.spawn
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from toy_builds import toy_ranges

from samrt.bundle.graph_check import check_graph
from samrt.engines.builder.child import build_in_child
from samrt.engines.builder.engine import BuildOptions, BuiltEngine, build_engine
from samrt.engines.builder.worker import put
from samrt.engines.flavours import Flavour
from samrt.engines.profiles import Range
from samrt.errors import BackendError, BundleError, OutputError, Remedy
from samrt.kernels.library import PLUGIN_VARIABLE
from samrt.progress import SILENT, Lines, Progress

pytest_plugins = ("tensorrt_fixtures", "toy_fixtures")
# A TensorRT-RTX for the child alone, whose parser does what the environment says.
STAND_IN = """
import enum, os, re
__version__ = "1.7.1"
class ComputeCapability(enum.Enum): SM86 = 1
class NetworkDefinitionCreationFlag(enum.IntEnum): STRONGLY_TYPED = 1
class ILogger: Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO")
class IProgressMonitor: pass
class Builder:
    def __init__(self, logger): pass
    def create_network(self, flags):
        with open(os.environ["PROCESS"], "w") as file:
            file.write(str(os.getpid()))
        exec(os.environ["DOES"])
"""
BUILD = """
from pathlib import Path
from samrt.engines.builder.child import *
from samrt.progress import SILENT
build_in_child(Flavour("tensorrt_rtx", None, "1.7.1"), Path("{onnx}"), {{}}, BuildOptions(), SILENT, Path("{folder}"))
"""
# In C and without an end, so that no signal's handler runs.
HANG = "re.match('(a+)+$', 'a' * 60 + 'b')"
EAT = "hoard = [b'x' * (1 << 20) for _ in range(1 << 20)]"
RTX = Flavour("tensorrt_rtx", None, "1.7.1")
Build = Callable[..., BuiltEngine]


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in, which is found from now on, writes its process's number."""
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in" / "tensorrt_rtx.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path / "stand_in"))
    monkeypatch.setenv("PROCESS", str(tmp_path / "process"))
    return tmp_path / "process"


@pytest.fixture
def does(process: Path, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Builds with the stand-in, which runs the code that it is given."""

    def build(code: str, progress: Progress = SILENT, **options: object) -> BuiltEngine:
        monkeypatch.setenv("DOES", code)
        folder = tmp_path / "engines"
        folder.mkdir()
        try:
            return build_in_child(
                RTX,
                toy_bundle / "decoder.onnx",
                toy_ranges("mask_decoder"),
                BuildOptions(**options),  # type: ignore[arg-type]
                progress,
                folder,
            )
        finally:
            assert list(folder.iterdir()) == []
            assert not Path("/proc", process.read_text()).exists()

    return build


def test_a_crash(does: Build) -> None:
    code = "os.write(1, b'libraries print\\n'); os.write(2, b'terminate called: \\x1b bad_alloc\\n'); os.abort()"
    with pytest.raises(BackendError, match=r"TensorRT-RTX 1\.7\.1 crashed while it built .*decoder\.onnx") as caught:
        does(code)
    assert r"(SIGABRT: terminate called: \x1b bad_alloc); use another version of TensorRT" in str(caught.value)


def test_a_child_that_the_system_kills(does: Build) -> None:
    with pytest.raises(BackendError, match=r"was killed \(SIGKILL\), as the system does where memory runs out; free"):
        does("os.kill(os.getpid(), 9)")


def test_ctrl_c_ends_a_build_that_hangs(does: Build, process: Path) -> None:
    def press(_: str) -> None:
        until(process.exists)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        does(HANG, Lines(press))
    signal.signal(signal.SIGINT, before)


def test_a_build_that_hangs_is_stopped(does: Build) -> None:
    with pytest.raises(BackendError, match=r"was stopped while .*: it took more than 2 seconds; .* raise time_limit_s"):
        does(HANG, time_limit_s=2)


def test_a_build_that_fills_the_memory_is_stopped(does: Build) -> None:
    with pytest.raises(BackendError, match=r"it took more than 200 MiB of memory; free memory, .*memory_limit_mib"):
        does(EAT, memory_limit_mib=200)


def test_an_error_arrives_as_it_was_raised(does: Build) -> None:
    remedy = Remedy("export with {precisions}, or {overwrite} it", {"precisions": ("fp32", "fp16"), "overwrite": True})
    with pytest.raises(BundleError, match=r"a name \\x1b") as caught:
        does(f"from samrt.errors import *; raise BundleError('a name \\x1b', {remedy!r})")
    assert (caught.value.facts, caught.value.remedy) == (r"a name \x1b", remedy)
    assert str(caught.value) == str(BundleError("a name \x1b", remedy))


def test_an_error_of_the_system_arrives_as_it_was_raised(does: Build) -> None:
    with pytest.raises(PermissionError) as caught:
        does("raise PermissionError(13, 'Permission denied', 'kernels.cache')")
    assert str(caught.value) == "[Errno 13] Permission denied: 'kernels.cache'"


def test_any_other_error_is_a_crash(does: Build) -> None:
    with pytest.raises(BackendError, match=r"crashed while .* \(exit status 1: ZeroDivisionError: division by zero\)"):
        does("1 / 0")


def test_a_full_disk() -> None:
    class Full(BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match=r"an engine of 4 bytes .*No space left on device; check the free space"):
        put(memoryview(b"plan"), Full())


def test_what_python_prints_while_it_starts_is_no_message(
    does: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "sitecustomize.py").write_text(r"print('{1}\n[1]\nhello', end='', flush=True)")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    lines: list[str] = []
    with pytest.raises(BundleError, match=r"^said$"):
        does("from samrt.errors import *; raise BundleError('said')", Lines(lines.append))
    assert lines == ["building decoder: reading decoder.onnx"]
    assert not recwarn.list


def test_an_isolated_python_starts_isolated_ones(toy_bundle: Path, tmp_path: Path) -> None:
    """A file on PYTHONPATH, which -I ignores, is not run in the child either."""
    (tmp_path / "sitecustomize.py").write_text("print('ran', flush=True); raise SystemExit")
    code = f"import sys; sys.path[:] = {sys.path!r}\n{BUILD.format(onnx=toy_bundle / 'none.onnx', folder=tmp_path)}"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "BundleError: there is no file" in done.stderr


@pytest.mark.parametrize("python", ["/nowhere/python", "", shutil.which("false")])
def test_no_python_to_start(python: str, tmp_path: Path, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.spawn, "get_executable", lambda: python)
    with pytest.raises(BackendError, match=f"did not start: .*{python}.*multiprocessing.set_executable"):
        build_in_child(RTX, toy_bundle / "x.onnx", {}, BuildOptions(), SILENT, tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path, toy_bundle: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write into .*nowhere: No such file"):
        build_in_child(RTX, toy_bundle / "x.onnx", {}, BuildOptions(), SILENT, tmp_path / "nowhere")


def test_a_real_build_in_a_thread(
    rtx: Flavour, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with modules of the same names, which a Python that runs no file there does not import."""
    for name in ("json", "samrt"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('of the working folder')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    lines: list[str] = []
    given = (rtx, toy_bundle / "decoder.onnx", toy_ranges("mask_decoder"), BuildOptions(("8.6",)))
    with ThreadPoolExecutor(1) as pool:
        built = pool.submit(build_in_child, *given, Lines(lines.append), tmp_path).result()
    here = build_engine(*given, SILENT)
    assert lines[0] == "building decoder: reading decoder.onnx"
    assert (built.memory, built.compute_capabilities, built.warnings) == (here.memory, ("8.6",), here.warnings)
    assert built.plan.nbytes == here.plan.nbytes
    assert bytes(built.plan[:16]) == bytes(here.plan[:16])


def test_the_plugin_is_loaded_in_the_child(
    rtx: Flavour, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLUGIN_VARIABLE, "/nowhere/plugin.so")
    with pytest.raises(BackendError, match=r"samrt's TensorRT plugin cannot be used: SAMRT_PLUGIN_LIBRARY names"):
        build_in_child(rtx, toy_bundle / "x.onnx", {}, BuildOptions(), SILENT, tmp_path, plugin=True)


def test_a_graph_that_crashes_the_real_one(rtx: Flavour, tmp_path: Path) -> None:
    """TensorRT-RTX 1.7.1 divides by it; another version may refuse it in words."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 4, 4]) for name in "xy")
    node = helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=0)
    onnx.save(helper.make_model(helper.make_graph([node], "graph", [x], [y])), str(tmp_path / "encoder.onnx"))
    check_graph(tmp_path / "encoder.onnx", [])
    shapes = {"x": Range((1, 4, 4, 4), (1, 4, 4, 4), (1, 4, 4, 4))}
    with pytest.raises(BackendError, match="encoder"):
        build_in_child(rtx, tmp_path / "encoder.onnx", shapes, BuildOptions(("8.6",)), SILENT, tmp_path)


def test_a_child_ends_with_its_parent(process: Path, toy_bundle: Path, tmp_path: Path) -> None:
    code = BUILD.format(onnx=toy_bundle / "decoder.onnx", folder=tmp_path)
    environment = {**os.environ, "DOES": HANG, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as parent:
        until(process.exists)
        parent.kill()
    until(lambda: not alive(int(process.read_text())))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def alive(process: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
