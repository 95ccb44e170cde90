"""CUDA graphs and the cache of compiled kernels, on the driver of `libcuda.c`; `outside.py`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from hostcuda.engine_fixtures import open_engine, prompts_for, same
from hostcuda.fake_tensorrt import Context, RuntimeCache, RuntimeConfig
from hostcuda.inside import counts, fail_captures

from samrt.backends.tensorrt import engine as tensorrt
from samrt.backends.tensorrt import graphs as capture
from samrt.backends.tensorrt.cache import cache_folder
from samrt.device.session import DeviceOptions, DeviceSession

pytest_plugins = ("hostcuda.engine_fixtures",)


def test_a_graph_is_captured_when_a_shape_comes_again(toy: Any, session: DeviceSession) -> None:
    engine = open_engine(toy, "decoder", session)
    before = counts()
    captured = []
    for seed in range(4):
        engine.run(prompts_for(toy, seed=seed))
        now = counts()
        captured.append((now["execs"] - before["execs"], now["launches"] - before["launches"]))
    assert captured == [(0, 0), (1, 0), (1, 1), (1, 2)]
    assert engine.cuda_graphs == "on"
    engine.close()
    assert counts()["execs"] == before["execs"]
    assert counts()["graphs"] == before["graphs"]


def test_few_graphs_are_kept(toy: Any, session: DeviceSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "_GRAPHS", 8)
    engine = open_engine(toy, "decoder", session)
    before = counts()["execs"]
    shapes = [(prompts, points) for prompts in (1, 2, 3) for points in (1, 2, 3, 4)]
    for _ in range(3):
        for shape in shapes:
            inputs = prompts_for(toy, *shape)
            same(engine.run(inputs), toy.reference["decoder"].run(inputs))
    assert counts()["execs"] - before == 8
    engine.close()
    assert counts()["execs"] == before


def test_without_graphs_none_is_captured(toy: Any, session: DeviceSession) -> None:
    engine = open_engine(toy, "decoder", session, cuda_graphs=False)
    before = counts()["launches"]
    for _ in range(3):
        engine.run(prompts_for(toy))
    assert (engine.cuda_graphs, counts()["launches"]) == ("off", before)
    engine.close()


def test_a_failed_capture_turns_graphs_off(toy: Any, session: DeviceSession, caplog: pytest.LogCaptureFixture) -> None:
    engine = open_engine(toy, "decoder", session)
    fail_captures(1)
    inputs = prompts_for(toy)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            same(engine.run(inputs), toy.reference["decoder"].run(inputs))
    assert len(caplog.records) == 1
    assert engine.cuda_graphs.startswith("off: capturing failed")
    assert "CAPTURE_INVALIDATED" in engine.cuda_graphs
    engine.close()


def test_a_kernel_that_cannot_be_captured_turns_graphs_off(toy: Any, session: DeviceSession) -> None:
    engine = open_engine(toy, "decoder", session)
    before = counts()
    for prompts in (1, 2):
        for seed in range(3):
            inputs = prompts_for(toy, prompts, seed=seed)
            same(engine.run(inputs), toy.reference["decoder"].run(inputs))
        assert counts()["execs"] - before["execs"] == 2 - prompts, "the first shape's graph goes with the second's"
        engine.fake.fails_in_captures = True
    assert "a kernel was not to be found" in engine.cuda_graphs
    assert counts()["graphs"] == before["graphs"]
    engine.close()


def test_too_little_memory_for_a_graph_turns_graphs_off(toy: Any, session: DeviceSession) -> None:
    engine = open_engine(toy, "decoder", session)
    engine.fake.contexts_left = 0
    inputs = prompts_for(toy)
    for _ in range(3):
        same(engine.run(inputs), toy.reference["decoder"].run(inputs))
    assert "no memory for another execution context" in engine.cuda_graphs
    engine.close()


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_default_streams_are_not_captured(toy: Any, stream: int, caplog: pytest.LogCaptureFixture) -> None:
    tensorrt._warn_once.cache_clear()
    with DeviceSession(DeviceOptions(stream=stream)) as session:
        engine = open_engine(toy, "decoder", session)
        for seed in range(3):
            inputs = prompts_for(toy, seed=seed)
            same(engine.run(inputs), toy.reference["decoder"].run(inputs))
        assert "default stream" in engine.cuda_graphs
        engine.close()
        open_engine(toy, "encoder", session).close()
    assert [record.getMessage() for record in caplog.records] == [f"CUDA graphs are {engine.cuda_graphs}"]


def test_a_refused_address_for_a_graph_turns_graphs_off(
    toy: Any, session: DeviceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(toy, "decoder", session)
    inputs = prompts_for(toy)
    with monkeypatch.context() as patch:
        patch.setattr(Context, "set_tensor_address", lambda *_: False)
        for _ in range(3):
            same(engine.run(inputs), toy.reference["decoder"].run(inputs))
    assert "refuses the address" in engine.cuda_graphs
    engine.close()


def _jit_files() -> list[Path]:
    return sorted(cache_folder().glob("*"))


def test_what_tensorrt_rtx_compiled_is_kept(
    toy: Any, session: DeviceSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    engine = open_engine(toy, "decoder", session, rtx=True)
    assert _jit_files() == []
    engine.run(prompts_for(toy))
    (file,) = _jit_files()
    first = file.read_bytes()
    assert file.name.endswith("-host-memory-0-8-7.jit")
    engine.run(prompts_for(toy, 2))
    engine.close()
    assert len(file.read_bytes()) > len(first)

    again = open_engine(toy, "decoder", session, rtx=True)
    written = file.stat().st_mtime_ns
    again.run(prompts_for(toy, 2))
    again.close()
    assert file.stat().st_mtime_ns == written, "nothing new was compiled"
    assert _jit_files() == [file]


@pytest.mark.parametrize("harm", ["damaged", "no folder", "no home", "refused", "not serialised"])
def test_a_useless_cache_is_no_error(
    toy: Any, session: DeviceSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if harm == "damaged":
        engine = open_engine(toy, "decoder", session, rtx=True)
        engine.run(prompts_for(toy))
        engine.close()
        _jit_files()[0].write_bytes(b"\0 damaged")
    elif harm == "no folder":
        (tmp_path / "cache").write_text("a file")
    elif harm == "refused":
        monkeypatch.setattr(RuntimeConfig, "set_runtime_cache", lambda config, _: setattr(config, "cache", _) or False)
    elif harm == "not serialised":
        monkeypatch.setattr(RuntimeCache, "serialize", lambda _: {}["lost"])
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    for _ in range(2):
        engine = open_engine(toy, "decoder", session, rtx=True)
        same(engine.run(prompts_for(toy)), toy.reference["decoder"].run(prompts_for(toy)))
        engine.close()
    if harm == "damaged":
        assert _jit_files()[0].read_bytes().startswith(b"[")
    elif harm in ("refused", "not serialised"):
        assert _jit_files() == []


def test_tensorrt_rtx_captures_by_itself(toy: Any, session: DeviceSession) -> None:
    engine = open_engine(toy, "decoder", session, rtx=True)
    before = counts()["launches"]
    for _ in range(3):
        engine.run(prompts_for(toy))
    assert engine._context.config.cuda_graph_strategy == "whole"
    assert (engine.cuda_graphs, counts()["launches"]) == ("left to TensorRT-RTX", before)
    engine.close()
    plain = open_engine(toy, "decoder", session, rtx=True, cuda_graphs=False)
    assert plain._context.config.cuda_graph_strategy == "disabled"
    plain.close()
