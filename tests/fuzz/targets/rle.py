"""Run lengths of masks, as JSON brings them: `samrt.rle.decode` and `area_and_box`."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
from fuzz.mutations import mutate_bytes, mutate_json

from samrt import SamrtError
from samrt.rle import area_and_box, bounding_box, decode, encode


def corpus(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    masks = [rng.random(size) < share for size in ((5, 7), (1, 1), (0, 3), (40, 30)) for share in (0.0, 0.1, 0.5, 1.0)]
    hostile = [
        {"size": [10**5, 10**5], "counts": "`oPo8"},
        {"size": [2, 2], "counts": "7" * 500},
        {"size": [2, 2], "counts": "ooooooo0" * 50},
        {"size": [2**62, 2], "counts": "0"},
        {"size": [2, 2], "counts": [1, 3]},
        {"size": [2, 2], "counts": "4\u00e9"},
        {"size": [True, 2], "counts": "4"},
        {"counts": None},
    ]
    return [json.dumps(each).encode() for each in [*map(encode, masks), *hostile]]


def run(data: bytes, state: None) -> str:
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        return "no-json"
    if not isinstance(given, dict):
        return "no-object"
    if isinstance(given.get("counts"), str) and len(data) % 3 == 0:
        given["counts"] = given["counts"].encode("utf-8", "surrogatepass")
    try:
        area, box = area_and_box(given)
        measured = True
    except SamrtError:
        measured = False
    try:
        mask = decode(given)
    except SamrtError as error:
        return f"{type(error).__name__}{'-measured' * measured}"
    assert measured
    assert mask.dtype == np.bool_
    assert list(mask.shape) == list(given["size"])
    assert mask.flags.c_contiguous
    assert (area, box) == (int(mask.sum()), bounding_box(mask))
    assert np.array_equal(decode(encode(mask)), mask)
    return "taken"


def mutate(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return mutate_json(data, rng)
    # Within the counts: characters of the format, so that numbers of all lengths come about.
    given = json.loads(data)
    if not isinstance(given.get("counts"), str):
        return mutate_bytes(data, rng)
    counts = list(given["counts"])
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(counts) + 1)
        counts[at : at + rng.randint(0, 2)] = (chr(rng.randrange(48, 112)) for _ in range(rng.randint(0, 3)))
    given["counts"] = "".join(counts)
    if rng.random() < 0.3:
        given["size"] = [rng.choice((0, 1, 2, 7, 2**16, 2**31, 2**32, 2**63)) for _ in range(2)]
    return json.dumps(given).encode()
