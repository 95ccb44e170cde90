"""Ctrl-C ends a graph that would run for minutes; results, errors and other threads are as without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from toy_bundle import rewrite_manifest, write_toy_bundle

from samrt.backends.interruptible import interruptible, is_call_left


def _endless(path: Path) -> None:
    """Put a Scan of 2**31 steps over empty slices in front of an encoder's output."""
    model = onnx.load(path, load_external_data=False)
    state = helper.make_tensor_value_info("s", TensorProto.FLOAT, [1])
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "s"], ["s2"])],
        "body",
        [state, helper.make_tensor_value_info("e", TensorProto.FLOAT, [0])],
        [helper.make_tensor_value_info("s2", TensorProto.FLOAT, [1])],
    )
    nodes = model.graph.node
    nodes[-1].output[0] = "before"
    shape = helper.make_tensor("", TensorProto.INT64, [2], [2**31, 0])
    one = helper.make_tensor("", TensorProto.INT64, [1], [1])
    nodes.extend([
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("Constant", [], ["one"], value=one),
        helper.make_node("ConstantOfShape", ["shape"], ["empty"]),
        helper.make_node("ReduceMax", ["before"], ["most"], keepdims=0),
        helper.make_node("Reshape", ["most", "one"], ["start"]),
        helper.make_node("Scan", ["start", "empty"], ["end"], num_scan_inputs=1, body=body),
        helper.make_node("Add", ["before", "end"], ["image_embeddings"]),
    ])  # fmt: skip
    onnx.save(model, path)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_an_endless_graph(tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "bundle")
    _endless(bundle / "encoder.onnx")
    rewrite_manifest(bundle)
    Image.fromarray(np.zeros((60, 90, 3), np.uint8)).save(tmp_path / "photo.png")
    words = ["segment", "photo.png", "--bundle", "bundle", "--point", "3,4", "-o", "out.png"]
    before = sorted(tmp_path.rglob("*"))
    process = subprocess.Popen(
        [sys.executable, "-m", "samrt", *words], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    time.sleep(3)
    assert process.poll() is None
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert time.monotonic() - sent < 2
    assert (process.returncode, out, err) == (130, "", "samrt: interrupted\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_call_that_does_not_stop_is_left() -> None:
    stopped, end = threading.Event(), threading.Event()
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        interruptible(end.wait, stopped.set)
    assert stopped.is_set()
    assert is_call_left()
    end.set()
    deadline = time.monotonic() + 5
    while is_call_left() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_call_left()


def test_results_and_errors_come_through() -> None:
    def fail() -> None:
        raise ValueError("as before")

    where = interruptible(threading.current_thread, lambda: None)
    assert where is not threading.main_thread()
    with pytest.raises(ValueError, match="as before"):
        interruptible(fail, lambda: None)
