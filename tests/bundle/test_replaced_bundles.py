"""A bundle that another process replaces while it is loaded: what is loaded is one of the two, never a mixture."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from toy_bundle import FACTORS, MIX, rewrite_manifest, write_toy_bundle

import samrt
from samrt.backends import onnxruntime
from samrt.bundle import file_state, folder
from samrt.bundle.file_state import BundleReplacedError
from samrt.errors import BundleError
from samrt.files import replacing_folder

pytest_plugins = ("toy_fixtures",)

_IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def _scaled(path: Path, factor: float) -> Path:
    """A toy bundle whose features and whose masks are `factor` times those of the toy bundle."""
    write_toy_bundle(path)
    (path / "encoder.weights").write_bytes((MIX * np.float32(factor)).tobytes())
    model = onnx.load(str(path / "decoder.onnx"))
    for tensor in model.graph.initializer:
        if np.array_equal(numpy_helper.to_array(tensor).ravel(), FACTORS):
            values = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save_model(model, str(path / "decoder.onnx"))
    rewrite_manifest(path)
    return path


def _copy(source: Path, target: Path) -> None:
    with replacing_folder(target) as fresh:
        for file in source.iterdir():
            (fresh / file.name).write_bytes(file.read_bytes())


def _result(model: samrt.Model) -> bytes:
    embedding = model.encode(_IMAGE)
    features = b"".join(feature.tobytes() for feature in embedding.features.values())
    return features + model.predict(embedding, box=[8, 8, 40, 40]).low_res_masks.tobytes()


def _once(then: Callable[[], object]) -> Callable[[], None]:
    calls = iter([then])

    def call() -> None:
        next(calls, lambda: None)()

    return call


@pytest.mark.parametrize("name", ["manifest.json", "decoder.onnx", "encoder.weights"])
def test_a_bundle_replaced_while_it_is_compared_is_read_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _scaled(tmp_path / "other", 2)
    target = write_toy_bundle(tmp_path / "bundle")
    replace = _once(lambda: _copy(other, target))
    whole = folder.hash_file

    def hash_file(path: Path) -> tuple[str, file_state.FileState]:
        if name in ("manifest.json", path.name):  # after the manifest was read, or later
            replace()
        return whole(path)

    monkeypatch.setattr(folder, "hash_file", hash_file)
    assert _result(samrt.load(target)) == _result(samrt.load(other))


def test_a_bundle_replaced_after_it_was_compared_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = _scaled(tmp_path / "other", 2)
    target = write_toy_bundle(tmp_path / "bundle")
    replace = _once(lambda: _copy(other, target))
    whole = onnxruntime._open_session

    def open_session(path: Path, threads: int | None) -> object:
        if path.name == "decoder.onnx":  # the encoder is loaded already
            replace()
        return whole(path, threads)

    monkeypatch.setattr(onnxruntime, "_open_session", open_session)
    assert _result(samrt.load(target)) == _result(samrt.load(other))


def test_a_bundle_replaced_many_times_in_a_row_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = _scaled(tmp_path / "other", 2)
    target = write_toy_bundle(tmp_path / "bundle")
    replacements = iter(range(30))
    whole = folder.check_graph

    def check_graph(path: Path, files: object) -> None:
        if next(replacements, None) is not None:
            _copy(other, target)
        whole(path, files)

    monkeypatch.setattr(folder, "check_graph", check_graph)
    assert _result(samrt.load(target)) == _result(samrt.load(other))


def test_a_bundle_that_is_replaced_for_ever_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_toy_bundle(tmp_path / "bundle")
    other = write_toy_bundle(tmp_path / "other")
    reads = 0
    whole = folder.check_graph

    def check_graph(path: Path, files: object) -> None:
        nonlocal reads
        reads += 1
        _copy(other, target)
        whole(path, files)

    monkeypatch.setattr(folder, "check_graph", check_graph)
    monkeypatch.setattr(file_state, "time", SimpleNamespace(monotonic=lambda: reads))
    with pytest.raises(BundleReplacedError, match="was replaced or changed while it was loaded; load the bundle again"):
        samrt.load(target)
    assert reads >= 10


def test_a_file_changed_after_open_bundle_is_not_loaded(own_bundle: Path) -> None:
    opened = samrt.open_bundle(own_bundle)
    content = (own_bundle / "encoder.weights").read_bytes()
    (own_bundle / "encoder.weights").write_bytes(bytes(reversed(content)))
    with pytest.raises(BundleReplacedError, match=r"encoder\.weights was replaced or changed while it was loaded"):
        samrt.load(opened)


def test_damage_is_still_called_damage(own_bundle: Path) -> None:
    (own_bundle / "encoder.weights").write_bytes(bytes(MIX.nbytes))
    with pytest.raises(BundleError, match="damaged or was tampered with"):
        samrt.load(own_bundle)


def test_loads_beside_replacements_are_never_mixed(tmp_path: Path) -> None:
    bundles = [_scaled(tmp_path / "one", 1), _scaled(tmp_path / "two", 2)]
    wanted = {_result(samrt.load(path)) for path in bundles}
    target = tmp_path / "bundle"
    _copy(bundles[0], target)
    stop = threading.Event()

    def replace() -> None:
        while not stop.is_set():
            for path in bundles:
                _copy(path, target)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        found = set()
        for _ in range(40):
            with samrt.load(target) as model:
                found.add(_result(model))
    finally:
        stop.set()
        thread.join()
    assert found <= wanted
