"""The files of an evaluation that goes on after a stop: its journal, and `results.json` of the evaluation before."""

from __future__ import annotations

import io
import json
import random
import re
import zlib
from pathlib import Path
from typing import Any

from fuzz.mutations import mutate_bytes, mutate_json

from samrt import SamrtError
from samrt.evaluation.journal import Journal, check_journal, read_records
from samrt.evaluation.results import check_results

_HEADER = {"model": {"id": "m", "files": {"a.onnx": "0" * 64}}, "prompts": ("box", "points:1"), "data_set": "abc"}
_IMAGES = ("a.png", "b/\u00e4.png", "c\ud800.png", "")
_RESULTS = {"format": "samrt-evaluation", "format_version": 1, "data_sets": [{"name": "first"}]}
_CHECKSUM = b',"crc32":'


def _record(image: str) -> dict[str, Any]:
    score = {"answer": 1, "iou": [0.5, 1.0], "points": [[3, 4]], "mask": {"size": [2, 2], "counts": "04"}}
    return {"image": image, "instances": [{"name": "x", "area": 3, "prompts": {"box": score}}]}


def corpus(folder: Path) -> list[bytes]:
    files = []
    for count in range(len(_IMAGES) + 1):
        path = folder / f"{count}.jsonl"
        path.unlink(missing_ok=True)
        with Journal(path, _HEADER) as journal:
            for image in _IMAGES[:count]:
                journal.add(_record(image))
        files.append(path.read_bytes())
    whole = files[-1]
    lines = whole.splitlines(keepends=True)
    hostile = [
        whole[:-5],
        b"".join([lines[0], *lines[:0:-1]]),
        b"".join([*lines, lines[1]]),
        whole.replace(b"\n", b"\r\n"),
        lines[0] + _sealed(b'{"image":"a.png","instances":' + b"[" * 5000),
        lines[0] + _sealed(b'{"image":[],"instances":[]'),
        lines[0] + _sealed(b'{"image":"a.png","instances":{}'),
        lines[0] + _sealed(b'{"image":"z.png","instances":[]'),
        _sealed(b'{"format_version":NaN'),
    ]
    return [*files, *hostile, b"", *(json.dumps(each).encode() for each in (_RESULTS, {**_RESULTS, "data_sets": [[]]}))]


def _sealed(text: bytes) -> bytes:
    return text + _CHECKSUM + b'"%08x"}\n' % zlib.crc32(text)


def setup(folder: Path) -> Path:
    return folder


def run(data: bytes, state: Path) -> str:
    return f"{_results(data, state / 'results.json')} {_journal(data, state / 'instances.jsonl')}"


def _results(data: bytes, path: Path) -> str:
    path.write_bytes(data)
    try:
        check_results(path, ["first"], restart=False)
    except SamrtError as error:
        return type(error).__name__
    assert json.loads(data)["format"] == _RESULTS["format"]
    return "taken"


def _journal(data: bytes, path: Path) -> str:
    path.write_bytes(data)
    lines = io.BytesIO(data).readlines()
    kept: dict[str, str] = {}
    for line in lines[1:]:
        image, record = _said(line)
        kept.setdefault(image, record) if record else None
    try:
        check_journal(path, _HEADER)
        with Journal(path, _HEADER) as journal:
            # Of an image that is there twice the first line counts; all other lines are dropped, and are said.
            assert journal.done == kept.keys()
            dropped = journal.dropped
            assert dropped == len(lines) - 1 - len(kept)
            for image in _IMAGES:
                if image not in kept:
                    journal.add(_record(image))
        images = sorted({*_IMAGES, *kept})
        records = list(read_records(path, images))
    except SamrtError as error:
        assert path.read_bytes() == data
        return type(error).__name__
    assert [repr(record) for record in records] == [kept.get(image, repr(_record(image))) for image in images]
    with Journal(path, _HEADER) as journal:
        assert (journal.dropped, sorted(journal.done)) == (0, images)
    return "dropped" if dropped else "taken"


def _said(line: bytes) -> tuple[str, str]:
    """The image of a line and the text of its record; empty where its checksum is wrong or it is no record."""
    found = re.fullmatch(rb"(.*),\"crc32\":\"([0-9a-f]{8})\"}\n", line, re.DOTALL)
    if found is None or int(found[2], 16) != zlib.crc32(found[1]):
        return "", ""
    try:
        record = json.loads(found[1] + b"}")
    except (ValueError, RecursionError):
        return "", ""
    fits = isinstance(record, dict) and isinstance(record.get("image"), str)
    return (record["image"], repr(record)) if fits and isinstance(record.get("instances"), list) else ("", "")


def mutate(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind == 0:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines[at] = mutate_bytes(lines[at], rng, data)
    elif kind == 3:
        return mutate_json(data, rng)
    else:
        # With a right checksum, as another program or a later samrt may write it.
        text = mutate_json(lines[at].rpartition(_CHECKSUM)[0] + b"}", rng).removesuffix(b"}")
        lines[at] = _sealed(text).removesuffix(b"\n")
    return b"\n".join(lines)
