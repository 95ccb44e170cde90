"""Embeddings are kept, saved and read back; damaged files are refused and run nothing."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samrt.embedding import Embedding
from samrt.errors import BundleError, InputError, OutputError

EMBEDDING = Embedding(
    {
        "image_embeddings": np.random.default_rng(0).standard_normal((1, 8, 16, 16)).astype(np.float32),
        "early": np.random.default_rng(1).standard_normal((1, 32, 32, 4)).astype(np.float32),
    },
    (480, 640),
    (48, 64),
    "abcd@64",
)
FEATURE = EMBEDDING.features["image_embeddings"]


def _arrays() -> dict[str, Any]:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        **{"feature:image_embeddings": FEATURE},
        format_version=2,
        region=np.array([0, 0, 640, 480]),
        original_size=np.array([480, 640]),
        input_size=np.array([48, 64]),
        model_id=np.array("abcd@64"),
    )
    return dict(np.load(io.BytesIO(buffer.getvalue())))


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "photo.embedding"
    EMBEDDING.save(path)
    assert list(tmp_path.iterdir()) == [path]
    loaded = Embedding.load(str(path))
    assert list(loaded.features) == ["image_embeddings", "early"]
    for name, feature in EMBEDDING.features.items():
        np.testing.assert_array_equal(loaded.features[name], feature)
        assert loaded.features[name].dtype == np.float32
    assert (loaded.original_size, loaded.input_size, loaded.model_id) == ((480, 640), (48, 64), "abcd@64")
    assert loaded.is_whole


def test_round_trip_of_a_region(tmp_path: Path) -> None:
    replace(EMBEDDING, region=(10, 20, 110, 220)).save(tmp_path / "a.npz")
    loaded = Embedding.load(tmp_path / "a.npz")
    assert (loaded.region, loaded.region_size, loaded.is_whole) == ((10, 20, 110, 220), (200, 100), False)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((0, 0, 641, 480), "not a part of the image of 640x480"),
        ((5, 5, 5, 9), "not a part of the image"),
        ((-1, 0, 9, 9), "not a part of the image"),
        ((1.5, 0, 9, 9), "four whole numbers"),
        ((1, 2, 3), "four whole numbers"),
        (7, "four whole numbers"),
    ],
)
def test_regions_outside_the_image_are_refused(region: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(EMBEDDING, region=region)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no embedding at"):
        Embedding.load(tmp_path / "absent.npz")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.npz"
    EMBEDDING.save(path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(BundleError, match=r"a.npz is not a whole embedding .* encode and save"):
        Embedding.load(path)


def test_flipped_bit(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    EMBEDDING.save(path)
    content = bytearray(path.read_bytes())
    content[content.index(np.asarray(FEATURE).tobytes()) + 1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"a.npz is not a whole embedding"):
        Embedding.load(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("feature:image_embeddings", None),
        ("feature:image_embeddings", np.zeros((1, 8, 16, 16))),
        ("feature:image_embeddings", np.zeros((8, 16, 16), np.float32)),
        ("feature:image_embeddings", np.zeros((2, 8, 16, 16), np.float32)),
        ("region", np.array([0, 0, 641, 480])),
        ("region", None),
        ("original_size", None),
        ("original_size", np.array([480])),
        ("original_size", np.array([480, 0])),
        ("input_size", np.array(["a", "b"])),
        ("model_id", None),
        ("model_id", np.array(["a", "b"])),
        ("format_version", None),
    ],
)
def test_wrong_content(tmp_path: Path, key: str, value: Any) -> None:
    arrays = {name: array for name, array in (_arrays() | {key: value}).items() if array is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BundleError, match="not a whole embedding"):
        Embedding.load(tmp_path / "a.npz")


def test_other_format_version(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **(_arrays() | {"format_version": np.int64(1)}))
    with pytest.raises(BundleError, match="format version 1, this samrt reads 2; encode the image again"):
        Embedding.load(tmp_path / "a.npz")


def test_file_that_is_one_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FEATURE)
    with pytest.raises(BundleError, match="not a whole embedding"):
        Embedding.load(tmp_path / "a.npy")


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("inside_npz", [True, False])
def test_pickle_is_not_executed(tmp_path: Path, inside_npz: bool) -> None:
    bomb = _Bomb(tmp_path / "executed")
    path = tmp_path / "a.npz"
    if inside_npz:
        np.savez(path, **(_arrays() | {"model_id": np.array(bomb, dtype=object)}))
    else:
        path.write_bytes(pickle.dumps(bomb))
    with pytest.raises(BundleError, match="not a whole embedding"):
        Embedding.load(path)
    assert not (tmp_path / "executed").exists()


def test_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    EMBEDDING.save(path)

    def full(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OutputError, match="No space left"):
        replace(EMBEDDING, model_id="new@64").save(path)
    assert Embedding.load(path).model_id == "abcd@64"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("features", [[1.0]]),
        ("features", {}),
        ("features", {"a": [[1.0]]}),
        ("features", {"a": np.zeros((1, 8, 16, 16))}),
        ("original_size", (480, 640, 3)),
        ("original_size", (480.5, 640)),
        ("original_size", None),
        ("input_size", (0, 64)),
        ("input_size", (64, 2**31)),
        ("original_size", (10**400, 640)),
        ("model_id", None),
        ("model_id", np.zeros(2)),
    ],
)
def test_made_up_embeddings_are_refused(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"(feature a|{field}) of an embedding must be"):
        replace(EMBEDDING, **{field: value})


def test_sizes_become_tuples_of_int() -> None:
    made = replace(EMBEDDING, original_size=[480, 640], input_size=np.array([48, 64]))
    assert (made.original_size, made.input_size) == ((480, 640), (48, 64))
    assert {type(side) for side in (*made.original_size, *made.input_size)} == {int}


@pytest.mark.parametrize("error", [MemoryError, SyntaxError, OverflowError])
def test_whatever_the_parser_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("odd")

    EMBEDDING.save(tmp_path / "a.npz")
    monkeypatch.setattr(np, "load", fail)
    with pytest.raises(BundleError, match=r"not a whole embedding \(odd\)"):
        Embedding.load(tmp_path / "a.npz")


def test_name_that_is_too_long() -> None:
    with pytest.raises(BundleError, match=r"no embedding at|File name too long"):
        Embedding.load("x" * 300)


def test_only_embeddings_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, mine=np.zeros(3))
    before = path.read_bytes()
    with pytest.raises(OutputError, match="samrt did not write it"):
        EMBEDDING.save(path)
    assert path.read_bytes() == before
    EMBEDDING.save(path, overwrite=True)
    replace(EMBEDDING, model_id="new@64").save(path)
    assert Embedding.load(path).model_id == "new@64"


def _compressed(path: Path) -> None:
    np.savez_compressed(path, **(_arrays() | {"feature:image_embeddings": np.zeros((1, 8, 1024, 1024), np.float32)}))


def _overlapping(path: Path) -> None:
    """Many members with the bytes of one."""
    np.savez(path, **_arrays())
    with zipfile.ZipFile(path, "a") as archive:
        feature = archive.getinfo("feature:image_embeddings.npy")
        archive.filelist += [copy(feature) for _ in range(100)]
        archive._didModify = True  # type: ignore[attr-defined]


def _headless(path: Path) -> None:
    """A member whose header claims 4 GB."""
    np.savez(path, **_arrays())
    content = path.read_bytes()
    assert content.count(b"'shape': (1, 8, 16, 16), }            ") == 1
    path.write_bytes(
        content.replace(b"'shape': (1, 8, 16, 16), }            ", b"'shape': (1, 8, 16384, 8192), }       ")
    )


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_compressed, "is compressed"),
        (_overlapping, "claim [0-9,]+ bytes, but"),
        (_headless, "claim 4,294,967,296 bytes"),
    ],
)
def test_bombs_are_refused_before_an_array_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], message: str
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("numpy read it")

    write(tmp_path / "a.npz")
    monkeypatch.setattr(np, "load", load)
    with pytest.raises(BundleError, match=message):
        Embedding.load(tmp_path / "a.npz")


def test_an_embedding_of_more_pixels_than_an_image_may_have_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **(_arrays() | {"original_size": np.array([100_000, 100_000])}))
    with pytest.raises(BundleError, match="100000x100000 pixels, and samrt reads 268,435,456 at most"):
        Embedding.load(tmp_path / "a.npz")
