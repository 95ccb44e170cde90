"""Saved embeddings, an .npz each, and masks of those that are taken."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.mutations import mutate_bytes, mutate_zip, read_zip, write_zip
from toy_bundle import C, S, write_toy_bundle

import samrt

# Masks of an image of 2^28 pixels take that many bytes, and logits on the way four times as many.
_LARGEST = 2**22
_DTYPES = ("<f4", ">f4", "<f2", "<f8", "|O", "|V4", "<U9", "|S3", "<i8", "<c8", "|b1", "<M8[s]", "<f4" * 40)
_SHAPES = ("()", "(0,)", "(1,)", "(1, 8, 16, 16)", "(-1, 8)", "(1, 2147483648, 2147483648)", "(1, 1e3)", "(1,) * 9")


def corpus(folder: Path) -> list[bytes]:
    def saved(embedding: samrt.Embedding) -> bytes:
        embedding.save(folder / "saved.npz")
        return (folder / "saved.npz").read_bytes()

    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    with samrt.load(write_toy_bundle(folder / "toy"), threads=1) as model:
        files = [saved(model.encode(pixels)), saved(model.encode(pixels, region=(5, 0, 25, 20)))]
    members = read_zip(files[0])
    hostile: list[dict[str, Any]] = [
        {"original_size": np.array([10**5, 10**5])},
        {"original_size": np.array([20, 3000])},
        {"original_size": np.array([20.5, np.nan])},
        {"original_size": np.array(["20", "30"])},
        {"input_size": np.array([64, 64])},
        {"region": np.array([0, 0, 31, 21])},
        {"region": np.zeros((4, 0), np.int64)},
        {"format_version": np.array([])},
        {"model_id": np.array("x" * 10_000)},
        {"feature:image_embeddings": np.full((1, C, S // 4, S // 4), np.nan, np.float32)},
        {"feature:image_embeddings": np.ones((1, C, 1, 1), np.float32)},
        {"feature:": np.ones((1, 1), np.float32)},
    ]
    for changes in hostile:
        changed = {f"{name}.npy": _npy(array) for name, array in changes.items()}
        files.append(write_zip([*((n, changed.pop(n, content)) for n, content in members or ()), *changed.items()]))
    return [*files, b"", files[0][:-30], _npy(np.ones(3))]


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def setup(folder: Path) -> tuple[samrt.Model, Path]:
    return samrt.load(write_toy_bundle(folder / "toy"), threads=1), folder / "embedding.npz"


def run(data: bytes, state: tuple[samrt.Model, Path]) -> str:
    model, path = state
    path.write_bytes(data)
    try:
        embedding = samrt.Embedding.load(path)
    except samrt.SamrtError as error:
        return type(error).__name__
    height, width = embedding.original_size
    x0, y0, x1, y1 = embedding.region
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert sum(np.asarray(feature).nbytes for feature in embedding.features.values()) <= len(data)
    if height * width > _LARGEST:
        return "large"
    try:
        prediction = model.predict(embedding, box=[x0, y0, x1, y1], return_logits=True)
    except samrt.SamrtError as error:
        return f"predict-{type(error).__name__}"
    inside = prediction.masks[:, y0:y1, x0:x1]
    assert prediction.masks.shape == (3, height, width)
    assert np.isfinite(inside).all()
    # As `shows` in samrt/encoding.py says: off by a pixel, or stretched to the whole square.
    expected = model.geometry.input_size(y1 - y0, x1 - x0)
    assert embedding.input_size == (S, S) or np.abs(np.subtract(embedding.input_size, expected)).max() <= 1
    return "taken"


def mutate(data: bytes, rng: random.Random) -> bytes:
    return mutate_zip(data, rng, _member)


def _member(name: str, content: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(6)
    if kind == 0:
        # A header of its own, with the old content behind it.
        header = f"{{'descr': '{rng.choice(_DTYPES)}', 'fortran_order': False, 'shape': {rng.choice(_SHAPES)}, }}"
        text = header.encode().ljust(rng.choice((117, 200)), b" ") + b"\n"
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content[128:]
    if kind == 1 and len(content) < 300:
        numbers = [
            rng.choice((-1, 0, 1, 2, 4, 16, 20, 30, 64, 10**5, 2**31, 2**62)) for _ in range(rng.choice((1, 2, 4)))
        ]
        return _npy(np.array(numbers, rng.choice((np.int64, np.float64, np.complex64, np.float16))))
    if kind == 2 and len(content) < 300:
        return _npy(np.array([rng.randint(1, 70) for _ in range(rng.choice((2, 2, 4)))]))
    if kind == 3 and len(content) > 300:
        shape = [1, *(rng.choice((1, 2, 8, 16, 17)) for _ in range(rng.randint(0, 4)))]
        return _npy(np.full(shape, rng.choice((0, np.nan, np.inf, 1e38, 1e-45)), rng.choice((np.float32, np.float64))))
    return mutate_bytes(content, rng)
