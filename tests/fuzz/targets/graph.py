"""ONNX files in a bundle whose manifest has their right hash: loaded, and run on a small image.

The first byte of an input says which of the two graphs it is, "E" or "D".
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import onnx
from fuzz.graphs import change, encoders
from fuzz.mutations import mutate_bytes
from google.protobuf.message import DecodeError
from toy_bundle import rewrite_manifest, write_toy_bundle

import samrt
from samrt.backends.interruptible import is_call_left

# A graph of known operators can ask for much memory or time: docs/security.md.
MEMORY = 2 << 30
_SECONDS = 5
# onnx's inference of shapes, in ONNX Runtime 1.32: a Slice of an axis whose length comes out negative, such as after a
# kernel that is larger than its input. No check without shapes can tell.
KNOWN = {"std::clamp": "negative-length"}
_FILES = {b"E": "encoder.onnx", b"D": "decoder.onnx"}
_IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


class _TookLongError(Exception):
    """The graph computes for longer than a fuzzer waits."""


def corpus(folder: Path) -> list[bytes]:
    toy = write_toy_bundle(folder / "toy")
    graphs = [mark + (toy / name).read_bytes() for mark, name in _FILES.items()]
    return [*graphs * 5, *(b"E" + each for each in encoders())]


def setup(folder: Path) -> Path:
    return write_toy_bundle(folder / "toy")


def run(data: bytes, state: Path) -> str:
    file = state / _FILES.get(data[:1], "encoder.onnx")
    kept = file.read_bytes()
    try:
        file.write_bytes(data[1:] or b"\n")
        rewrite_manifest(state)
        with _time_limit():
            return _predict(state)
    except _TookLongError:
        return "slow"
    finally:
        file.write_bytes(kept)


def spent(state: Path) -> bool:
    """Whether the process has a thread left that computes."""
    return is_call_left()


def _predict(folder: Path) -> str:
    step = "load"
    try:
        with samrt.load(folder, threads=1) as model:
            step = "encode"
            embedding = model.encode(_IMAGE)
            step = "predict"
            prediction = model.predict(embedding, point_coords=[[10, 10]], point_labels=[1], return_logits=True)
    except samrt.SamrtError as error:
        return f"{step}-{type(error).__name__}"
    assert prediction.masks.shape == (3, 20, 30)
    assert prediction.masks.dtype == np.float32
    assert np.isfinite(prediction.masks).all()
    assert prediction.iou_predictions.shape == (3,)
    assert np.isfinite(prediction.iou_predictions).all()
    return "taken"


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TookLongError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def mutate(data: bytes, rng: random.Random) -> bytes:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data[1:])
    except DecodeError:
        return data[:1] + mutate_bytes(data[1:], rng)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        with suppress(ValueError, TypeError, IndexError, OverflowError):
            change(model, rng)
    return data[:1] + model.SerializeToString()
