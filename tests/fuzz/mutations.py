"""Seeded mutations: of bytes, of JSON, and of the members of a zip with right checksums."""

from __future__ import annotations

import io
import json
import random
import warnings
import zipfile
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]

_LIMIT = 1 << 20  # of what a mutation makes longer
_NUMBERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
_TEXTS = (
    b"\x00",
    b"\xff" * 8,
    b"../",
    b"\x1b[2J",
    b"\xed\xa0\x80",
    b"%n%s",
    b"-1",
    b"1e400",
    b"NaN",
    b"\n",
    b'"',
    b"'",
)
# As they stand in a file: what Python's json module would not write.
_TOKENS = (
    *("null", "true", "false", "0", "-0.0", "-1", "1.5", "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-Infinity"),
    *(str(2**31), str(2**53 + 1), str(2**63), str(2**64), "1" + "0" * 400, "9" * 5000, "[]", "{}", "[[]]", '""', '"0"'),
    *("[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500, "[" + "0," * 2000 + "0]", '"\\ud800"', '"\\u0000"'),
    *('"\\u001b[31m"', '"../x"', '"/etc/passwd"', '"."', '""', '"' + "x" * 5000 + '"', '"e\\u0301\\u202e"', '"NaN"'),
)


class Raw(str):
    """A piece of JSON that is written as it is."""

    __slots__ = ()


class Pairs(list):
    """An object of JSON as pairs of key and value, so that keys may come twice."""


def mutate_bytes(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """One to eight changes at random places; `other` is an input to splice with."""
    result = bytearray(data)
    for _ in range(min(rng.randint(1, 8), rng.randint(1, 8))):
        result = _step(result, rng, other)
    return bytes(result[:_LIMIT])


def _step(data: bytearray, rng: random.Random, other: bytes) -> bytearray:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 2, 4, 8, rng.randint(1, 64), rng.randint(1, 4096))))
    kind = rng.randrange(9)
    if kind <= 1 and at < len(data):
        data[at] = data[at] ^ (1 << rng.randrange(8)) if kind else rng.randrange(256)
    elif kind == 2:
        del data[at:end]
    elif kind == 3:
        data[at:at] = data[at:end] * rng.choice((1, 1, 2, 16))
    elif kind == 4:
        number = rng.choice(_NUMBERS) + rng.choice((0, 0, 1, -1))
        width = rng.choice((1, 2, 4, 8))
        data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, rng.choice(("little", "big")))
    elif kind == 5:
        data[at:at] = rng.choice(_TEXTS)
    elif kind == 6 and other:
        cut = rng.randrange(len(other))
        data[at:] = other[cut:]
    elif kind == 7 and other:
        cut = rng.randrange(len(other))
        data[at:end] = other[cut : cut + end - at]
    elif rng.random() < 0.5:
        del data[at:]
    else:
        data[at:end] = rng.randbytes(end - at)
    return data


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Replace, delete, double, move or rename values of a JSON document; of what is none, bytes are changed."""
    try:
        document = json.loads(data, object_pairs_hook=Pairs)
    except (ValueError, RecursionError):
        return mutate_bytes(data, rng)
    root = [document]
    for _ in range(min(rng.randint(1, 5), rng.randint(1, 5))):
        _change_json(root, rng)
    return _dump(root[0]).encode("utf-8", "surrogatepass")[:_LIMIT]


def _places(container: list, found: list) -> list:
    """All places of values: the list that holds one, and its index."""
    for index, item in enumerate(container):
        value = item[1] if isinstance(container, Pairs) else item
        found.append((container, index))
        if isinstance(value, list):
            _places(value, found)
    return found


def _change_json(root: list, rng: random.Random) -> None:
    places = _places(root, [])
    container, index = rng.choice(places)
    other, other_index = rng.choice(places)
    key, value = container[index] if isinstance(container, Pairs) else ("", container[index])
    kind = rng.randrange(8)
    if kind == 0 and container is not root:
        del container[index]
        return
    if kind == 1 and container is not root:
        container.insert(rng.randrange(len(container) + 1), container[index])
        return
    if kind == 2 and isinstance(container, Pairs):
        name = other[other_index][0] if isinstance(other, Pairs) else rng.choice(("", "x", "\ud800", "\x1b[2J", "../a"))
        container[index] = (name, value)
        return
    if kind == 3:
        # A copy: a value within itself could not be written.
        taken = _dump(other[other_index][1] if isinstance(other, Pairs) else other[other_index])
        new = Raw(taken if len(taken) < 10_000 else "0")
    elif kind == 4 and isinstance(value, (int, float)) and not isinstance(value, bool):
        new = Raw(rng.choice((str(value + 1), str(-value), f"{value}0", f"{value}e1", str(value * 2), f'"{value}"')))
    elif kind == 5 and isinstance(value, str) and not isinstance(value, Raw):
        new = Raw(
            json.dumps(mutate_bytes(value.encode("utf-8", "surrogatepass"), rng).decode("utf-8", "surrogateescape"))
        )
    elif kind == 6:
        new = Raw(f"[{_dump(value)}]")
    else:
        new = Raw(rng.choice(_TOKENS))
    container[index] = (key, new) if isinstance(container, Pairs) else new


def _dump(value: object) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(key)}: {_dump(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_dump, value)) + "]"
    return json.dumps(value)


def read_zip(data: bytes) -> list[tuple[str, bytes]] | None:
    """Names and contents of the members, or None."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        return None


def write_zip(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with right checksums; names may come twice."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            # A fixed date, so that the same seed gives the same bytes.
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = method
            archive.writestr(info, content)
    return file.getvalue()


def mutate_zip(data: bytes, rng: random.Random, inner: Callable[[str, bytes, random.Random], bytes]) -> bytes:
    """Change members and write them again with right checksums; `inner` changes the content of the member named."""
    members = read_zip(data)
    if not members:
        return mutate_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        index = rng.randrange(len(members))
        name, content = members[index]
        kind = rng.randrange(12)
        if kind == 0 and len(members) > 1:
            del members[index]
        elif kind == 1:
            members.insert(rng.randrange(len(members) + 1), members[index])
        elif kind == 2:
            members[index] = (
                rng.choice(members)[0] if rng.random() < 0.5 else rng.choice(("../x", "", "a\x1b")),
                content,
            )
        elif kind == 3:
            members[index] = (name, rng.choice(members)[1])
        else:
            members[index] = (name, inner(name, content, rng))
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.05 else zipfile.ZIP_STORED
    try:
        return write_zip(members, method)[:_LIMIT]
    except (ValueError, UnicodeError):
        return mutate_bytes(data, rng)
