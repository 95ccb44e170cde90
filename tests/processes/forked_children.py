"""What children of a process that has loaded a model do; prints how each ended as JSON. Run by test_fork.py."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ending import end_here, ending

import samrt
from samrt.backends import onnxruntime
from samrt.files import replacing_file, replacing_folder

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
PROMPT: dict[str, Any] = {"point_coords": [[30.0, 20.0]], "point_labels": [1]}

folder = Path(sys.argv[1])
os.chdir(folder)
model = samrt.load("bundle")
# A child finds the bundle wherever its parent went.
os.chdir("/")
embedding = model.encode(IMAGE)
expected = model.predict(embedding, **PROMPT).low_res_masks
large = cv2.resize(expected[0], (3000, 3000))


def predict() -> None:
    assert np.array_equal(model.predict(embedding, **PROMPT).low_res_masks, expected)


def encode() -> None:
    again = model.encode(IMAGE)
    assert all(np.array_equal(again.features[name], feature) for name, feature in embedding.features.items())


def predictor() -> None:
    meta = samrt.SamPredictor(model)
    meta.set_image(IMAGE)
    assert np.array_equal(meta.predict(np.array([[30.0, 20.0]]), np.array([1]))[2], expected)


def delete() -> None:
    global model  # noqa: PLW0603
    del model
    gc.collect()


def close() -> None:
    model.close()
    refused(samrt.BackendError, "this model is closed")


def use_then_close() -> None:
    predict()
    close()


def grandchild() -> None:
    predict()
    assert ending(use_then_close, end_here) == ending(delete, end_here) == "exit 0"
    predict()


def threads() -> None:
    opened = []
    make, onnxruntime._open_session = onnxruntime._open_session, lambda *how: opened.append(how) or make(*how)
    with ThreadPoolExecutor(4) as pool:
        assert all(future.exception() is None for future in [pool.submit(predict) for _ in range(8)])
    assert len(opened) == 1


def resize() -> None:
    # With OpenCV's threads, which the parent has used.
    assert np.array_equal(cv2.resize(expected[0], (3000, 3000)), large)


def end_at_once() -> None:
    predict()
    os._exit(0)


def refused(kind: type[Exception], *texts: str) -> None:
    found = None
    try:
        predict()
    except kind as error:
        found = str(error)
    assert found is not None
    assert all(text in found for text in texts), found


def while_another_thread(work: Callable[[], object]) -> Callable[[], str]:
    """Children that predict, of a process with a thread that repeats `work`."""

    def parent() -> str:
        stop = threading.Event()

        def repeat() -> None:
            while not stop.is_set():
                work()

        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            return next((end for end in (ending(predict, end_here) for _ in range(3)) if end != "exit 0"), "exit 0")
        finally:
            stop.set()
            thread.join()

    return parent


def load_and_close() -> None:
    samrt.load(folder / "bundle").close()


def in_a_thread() -> str:
    ends: list[str] = []
    thread = threading.Thread(target=lambda: ends.append(ending(use_then_close, end_here)))
    thread.start()
    thread.join()
    return ends[0]


def while_closing() -> str:
    """A child of a process, one thread of which holds the locks of a model for ever."""
    engine, held, done = model._session.encoder, threading.Event(), threading.Event()

    def hold() -> None:
        with model._session._lock.here(), engine._lock.here():
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        return ending(use_then_close, end_here)
    finally:
        done.set()
        thread.join()


def writing() -> str:
    """Children that leave the blocks of their parent in which a file and a folder are written."""
    for replacing in (replacing_file, replacing_folder):
        target = folder / replacing.__name__
        number = 1
        try:
            with replacing(target) as temporary:
                number = os.fork()
                if number and os.waitpid(number, 0)[1] == 0 and temporary.exists() and not target.exists():
                    continue
        except samrt.OutputError as error:
            if number == 0:
                os._exit("its parent goes on writing it" not in str(error))
        return f"{replacing.__name__}: the child touched it"
    return "exit 0"


def in_a_bundle(change: Callable[[Path], object], child: Callable[[Path], object]) -> Callable[[], str]:
    """A child of a process that has loaded a bundle, and changed it before the child uses it."""

    def parent() -> str:
        global model  # noqa: PLW0603
        shared, copy = model, folder / "copy"
        shutil.copytree(folder / "bundle", copy)
        model = samrt.load(copy)
        change(copy)
        try:
            return ending(lambda: child(copy), end_here)
        finally:
            predict()  # the parent's own session needs no files
            model.close()
            model = shared
            shutil.rmtree(copy, ignore_errors=True)

    return parent


def write_anew(bundle: Path) -> None:
    for path in [*bundle.iterdir()]:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)


def damage(bundle: Path) -> None:
    weights = bundle / "encoder.weights"
    weights.write_bytes(bytes(weights.stat().st_size))


CHILDREN = [predict, encode, predictor, delete, close, use_then_close, grandchild, threads, resize, end_at_once]
PARENTS = {
    "in_a_thread": in_a_thread,
    "while_closing": while_closing,
    "writing": writing,
    "while_predicting": while_another_thread(predict),
    "while_loading": while_another_thread(load_and_close),
    "bundle_written_anew": in_a_bundle(write_anew, lambda _: predict()),
    "bundle_gone": in_a_bundle(
        shutil.rmtree, lambda path: refused(samrt.BundleError, str(path), "load the model after the fork")
    ),
    "bundle_damaged": in_a_bundle(
        damage, lambda path: refused(samrt.BundleError, f"{path}/encoder.weights has changed since", "after the fork")
    ),
}

if __name__ == "__main__":
    ends = {"nothing": ending(lambda: None)}
    ends |= {child.__name__: ending(child) for child in CHILDREN}
    ends |= {name: parent() for name, parent in PARENTS.items()}
    predict()
    print(json.dumps(ends))
