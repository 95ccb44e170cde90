"""Closing, leaks and threads, on the driver of `libcuda.c`; `outside.py`."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostcuda.engine_fixtures import an_image, open_engine, prompts_for, same
from hostcuda.inside import alive, counts, current, limit_memory
from processes.ending import end_here, ending

from samrt.backends.tensorrt.cache import JitCache
from samrt.device import array
from samrt.device.session import DeviceOptions, DeviceSession
from samrt.errors import BackendError, InputError

pytest_plugins = ("hostcuda.engine_fixtures",)


def test_too_little_memory_to_load_leaves_nothing_behind(toy: Any, session: DeviceSession) -> None:
    before = alive()
    limit_memory(before["bytes"] + 20_000)
    try:
        with pytest.raises(BackendError, match="OUT_OF_MEMORY"):
            open_engine(toy, "decoder", session)
    finally:
        limit_memory(1 << 30)
    gc.collect()
    assert alive() == before


def test_closing_gives_back_everything_but_the_results(toy: Any, session: DeviceSession) -> None:
    before = alive()
    engine = open_engine(toy, "decoder", session)
    for _ in range(3):
        result = engine.run(prompts_for(toy), on_device=["low_res_masks"])["low_res_masks"]
    engine.close()
    engine.close()
    assert alive()["device"] == before["device"] + 1
    assert np.isfinite(result.numpy()).all()
    with pytest.raises(BackendError, match="closed"):
        engine.run(prompts_for(toy))
    del result
    # The session's stream for capturing stays.
    assert alive() == {**before, "streams": before["streams"] + 1}


@pytest.mark.parametrize("rtx", [False, True])
def test_a_session_that_is_closed_first_ends_its_engines(toy: Any, rtx: bool) -> None:
    before = alive()
    session = DeviceSession()
    engine = open_engine(toy, "decoder", session, rtx=rtx)
    for _ in range(3):
        engine.run(prompts_for(toy))
    session.close()
    calls = counts()["calls"]
    with pytest.raises(BackendError, match="this model is closed"):
        engine.run(prompts_for(toy))
    with pytest.raises(BackendError, match="this model is closed"):
        open_engine(toy, "decoder", session)
    engine.close()
    assert counts()["calls"] == calls, "nothing was put on the stream that is gone"
    gc.collect()
    assert alive() == before


def test_closing_goes_on_where_saving_fails(toy: Any, session: DeviceSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: JitCache) -> None:
        raise KeyboardInterrupt

    before = alive()
    engine = open_engine(toy, "decoder", session, rtx=True)
    engine.run(prompts_for(toy))
    monkeypatch.setattr(JitCache, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        engine.close()
    assert alive() == before
    engine.close()


def test_an_engine_that_is_dropped_gives_back_everything(toy: Any, session: DeviceSession) -> None:
    before = alive()
    engine = open_engine(toy, "decoder", session)
    for _ in range(3):
        engine.run(prompts_for(toy))
    del engine
    gc.collect()
    assert alive() == {**before, "streams": before["streams"] + 1}


@pytest.mark.parametrize("rtx", [False, True])
def test_a_forked_child_gets_an_error_and_leaves_the_driver_alone(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rtx: bool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with DeviceSession() as session, closing(open_engine(toy, "decoder", session, rtx=rtx)) as engine:
        for _ in range(3):
            result = engine.run(prompts_for(toy), on_device=["low_res_masks"])["low_res_masks"]
        saved = {path: path.read_bytes() for path in tmp_path.rglob("*.jit")}
        held = [engine, session, result]

        def child() -> None:
            # What makes CUDA's context current; a real driver fails there.
            DeviceSession.current = array.primary_context = lambda *_: pytest.fail("CUDA was used")
            for use in (lambda: engine.run(prompts_for(toy)), result.numpy, lambda: session.allocate(1)):
                with pytest.raises(BackendError, match=r"CUDA does not work in a forked child; load the model after"):
                    use()
            for each in held:
                each.close()

        holding = threading.Event(), threading.Event()

        def hold() -> None:
            with session.lock:
                holding[0].set()
                holding[1].wait()

        thread = threading.Thread(target=hold)
        thread.start()
        holding[0].wait()
        try:
            assert ending(child, end_here) == "exit 0"
        finally:
            holding[1].set()
            thread.join()
        assert {path: path.read_bytes() for path in tmp_path.rglob("*.jit")} == saved
        assert np.isfinite(engine.run(prompts_for(toy))["low_res_masks"]).all()


def test_an_array_in_gpu_memory_is_not_pickled(toy: Any, session: DeviceSession) -> None:
    engine = open_engine(toy, "decoder", session)
    result = engine.run(prompts_for(toy), on_device=["low_res_masks"])["low_res_masks"]
    for function in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InputError, match="copy it to the host with numpy"):
            function(result)
    engine.close()


def test_a_thousand_loads_leave_nothing_behind(toy: Any) -> None:
    before = alive()
    for load in range(1000):
        with DeviceSession() as session:
            engine = open_engine(toy, "encoder", session, rtx=load % 2 == 1)
            for _ in range(3 if load % 50 == 0 else 0):
                engine.run(an_image(), on_device=["image_embeddings"] * (load % 100 == 0))
            engine.close()
    gc.collect()
    assert alive() == before
    assert current() == 0


def _run_in_threads(functions: list[Any]) -> None:
    failures: list[BaseException] = []

    def guarded(function: Any) -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_sessions_run_in_threads_of_their_own(toy: Any) -> None:
    before = alive()

    def work(seed: int) -> None:
        with DeviceSession(DeviceOptions(device=seed % 2)) as session:
            encoder, decoder = (open_engine(toy, name, session) for name in ("encoder", "decoder"))
            for turn in range(20):
                embedding = encoder.run(an_image(seed + turn), on_device=["image_embeddings"])
                prompts = prompts_for(toy, 1 + turn % 3, turn % 5, seed=seed)
                expected = toy.reference["encoder"].run(an_image(seed + turn))
                same(decoder.run({**prompts, **embedding}), toy.reference["decoder"].run({**prompts, **expected}))
            encoder.close()
            decoder.close()

    _run_in_threads([lambda seed=seed: work(seed) for seed in range(4)])
    gc.collect()
    assert alive() == before


def test_one_session_serves_several_threads(toy: Any, session: DeviceSession) -> None:
    encoder, decoder = (open_engine(toy, name, session) for name in ("encoder", "decoder"))

    def encode(seed: int) -> None:
        for turn in range(20):
            same(encoder.run(an_image(seed + turn)), toy.reference["encoder"].run(an_image(seed + turn)))

    def decode(seed: int) -> None:
        for turn in range(20):
            inputs = prompts_for(toy, 1 + turn % 3, turn % 5, seed=seed)
            same(decoder.run(inputs), toy.reference["decoder"].run(inputs))

    _run_in_threads([lambda f=f, seed=seed: f(seed) for seed in range(2) for f in (encode, decode)])
    encoder.close()
    decoder.close()
