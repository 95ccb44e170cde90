"""Prompts of odd values, types and shapes for `Model.predict`; the bytes of an input steer what is made."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from toy_bundle import S, write_toy_bundle

import samrt

_SIZE = (20, 30)
_NUMBERS = (
    0,
    1,
    -1,
    5,
    10.5,
    19,
    20,
    29.999,
    30,
    31,
    -1.5,
    -0.0,
    1e-300,
    1e300,
    1e38,
    4e38,
    2**31,
    2**63,
    10**30,
    10**400,
)
_ODD = (
    float("nan"),
    float("inf"),
    None,
    "3",
    b"3",
    True,
    1j,
    [],
    [[]],
    {},
    (),
    object,
    np.float16(3),
    np.uint64(2**63),
)
_DTYPES = (
    np.float64,
    np.float32,
    np.float16,
    np.int64,
    np.uint8,
    np.int8,
    np.bool_,
    np.complex64,
    object,
    "U4",
    "M8[s]",
)

State = tuple[samrt.Model, list[samrt.Embedding]]


def corpus(folder: Path) -> list[bytes]:
    return [bytes([value, number]) * 40 for value in range(0, 256, 5) for number in (0, 77, 255)]


def setup(folder: Path) -> State:
    model = samrt.load(write_toy_bundle(folder / "toy"), threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (*_SIZE, 3), np.uint8)
    return model, [model.encode(pixels), model.encode(pixels, region=(4, 3, 20, 17))]


def run(data: bytes, state: State) -> str:
    model, embeddings = state
    rng = random.Random(data)
    embedding = rng.choice(embeddings)
    batch = rng.choice((None, None, 1, 2, 3, 0))
    points = rng.choice((1, 1, 2, 3, 0))
    given: dict[str, Any] = {}
    if rng.random() < 0.6:
        given["point_coords"] = _array(rng, batch, (points, 2))
        given["point_labels"] = _array(rng, batch, (points,), (1, 0, -1, 1, 1))
    if rng.random() < 0.5:
        given["box"] = _box(rng, batch)
    if rng.random() < 0.3:
        given["mask_input"] = _array(rng, batch, (1, S, S), (0.0, 3.5, -20.0, 1e38))
    if rng.random() < 0.1:
        given.pop(rng.choice(sorted(given) or ["box"]), None)
    flags = {name: rng.random() < 0.5 for name in ("multimask_output", "return_logits", "clip")}
    try:
        if rng.random() < 0.3:
            given["scribble"] = samrt.Scribble(_strokes(rng), _strokes(rng) if rng.random() < 0.4 else None, _most(rng))
        prediction = model.predict(embedding, **given, **flags)
    except samrt.SamrtError as error:
        return type(error).__name__
    masks, scores, low_res = prediction.masks, prediction.iou_predictions, prediction.low_res_masks
    count = 3 if flags["multimask_output"] else 1
    lead = masks.shape[:-3]
    assert masks.shape == (*lead, count, *_SIZE)
    assert scores.shape == (*lead, count)
    assert low_res.shape == (*lead, count, S, S)
    assert masks.dtype == (np.float32 if flags["return_logits"] else np.bool_)
    assert np.isfinite(scores).all()
    assert np.isfinite(low_res).all()
    x0, y0, x1, y1 = embedding.region
    outside = np.ones(_SIZE, bool)
    outside[y0:y1, x0:x1] = False
    if flags["return_logits"]:
        assert np.isfinite(masks[..., y0:y1, x0:x1]).all()
        assert (masks[..., outside] == -np.inf).all()
    else:
        assert not masks[..., outside].any()
    return "taken"


def _number(rng: random.Random, values: tuple[Any, ...]) -> Any:
    kind = rng.random()
    if kind < 0.01:
        return rng.choice(_ODD)
    return rng.choice(_NUMBERS) if kind < 0.05 else rng.choice(values)


def _array(
    rng: random.Random, batch: int | None, shape: tuple[int, ...], values: tuple[Any, ...] = (5, 7, 9.5, 12)
) -> Any:
    if rng.random() < 0.02:
        return rng.choice(_ODD)
    full = (*(() if batch is None else (batch,)), *shape)
    if rng.random() < 0.05:
        full = tuple(rng.choice((n, n, 0, 1, n + 1)) for n in full)[rng.choice((0, 0, 1)) :]
    if np.prod(full) > 1000:
        array = np.full(full, rng.choice(values), rng.choice((np.float32, np.float64, object)))
        array.reshape(-1)[7] = _number(rng, values) if array.dtype == object else rng.choice((0, 1e30, np.nan))
        return array
    nested = _nested(rng, full, values)
    if rng.random() < 0.5:
        return nested
    try:
        return np.asarray(nested, rng.choice(_DTYPES[:3]) if rng.random() < 0.8 else rng.choice(_DTYPES))
    except (TypeError, ValueError, OverflowError):
        return nested


def _nested(rng: random.Random, shape: tuple[int, ...], values: tuple[Any, ...]) -> Any:
    if not shape:
        return _number(rng, values)
    length = shape[0] + (rng.random() < 0.005)
    return [_nested(rng, shape[1:], values) for _ in range(length)]


def _box(rng: random.Random, batch: int | None) -> Any:
    if rng.random() < 0.2:
        return _array(rng, batch, (4,))
    boxes = [[_number(rng, each) for each in ((4, 6), (4, 5.5), (15, 19, 30), (12, 17, 20))] for _ in range(batch or 1)]
    return boxes[0] if batch is None else boxes[:batch]


def _strokes(rng: random.Random) -> Any:
    kind = rng.random()
    if kind < 0.1:
        return rng.choice(_ODD)
    if kind < 0.4:
        size = _SIZE if rng.random() < 0.9 else (rng.choice((0, 1, 20)), 30)
        paint = np.zeros(size, rng.choice((np.bool_, np.uint8)) if rng.random() < 0.9 else rng.choice(_DTYPES[:-1]))
        paint[rng.randrange(5) : 12, 6:9] = rng.choice((0, 1, 1))
        return paint
    return [_array(rng, None, (rng.choice((1, 2, 5)), 2)) for _ in range(rng.choice((0, 1, 1, 2)))]


def _most(rng: random.Random) -> Any:
    return rng.choice((1, 8, 8, 10**6, 0, -1, True, 1.5, None))
