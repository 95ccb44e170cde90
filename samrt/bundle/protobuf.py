"""Messages of protobuf, field by field. What protobuf of C++ would read otherwise is refused."""

from __future__ import annotations

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10
_LONG = 0x80  # from here on a byte of a number is not its last; nearly all numbers have one byte
# Protobuf keeps the low 32 bits of a field's key: what lies above them would show this walk another field.
_LARGEST_KEY = (1 << 32) - 1
# Fields of one message. samrt's largest graphs have some thousands; each takes a hundred times its bytes in memory.
_MOST_FIELDS = 100_000

Field = tuple[int, int | memoryview]


class NotOnnxError(Exception):
    """The bytes are no message of protobuf, or not text where text belongs."""


def fields_of(data: memoryview) -> list[Field]:
    """Number and value of each field of a message: bytes where it has a length, else a number."""
    found: list[Field] = []
    place, end = 0, len(data)
    while place < end:
        if len(found) == _MOST_FIELDS:
            raise NotOnnxError(f"more than {_MOST_FIELDS:,} fields in one message")
        key, place = (data[place], place + 1) if data[place] < _LONG else _varint(data, place)
        number, kind = key >> 3, key & 7
        if number == 0 or key > _LARGEST_KEY:
            raise NotOnnxError(f"a field of the number {number}")
        if kind in (_BYTES, _VARINT):
            is_short = place < end and data[place] < _LONG
            value, place = (data[place], place + 1) if is_short else _varint(data, place)
            if kind == _VARINT:
                found.append((number, value))
                continue
            length = value
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise NotOnnxError(f"a field of the kind {kind}")
        if length > end - place:
            raise NotOnnxError("a field that reaches past its end")
        content = data[place : place + length]
        # Not bytes: protobuf skips a text or a message that is given in this form.
        found.append((number, content if kind == _BYTES else int.from_bytes(content, "little")))
        place += length
    return found


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[place : place + _VARINT_BYTES]:
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < _LONG:
            return value, place
        shift += 7
    raise NotOnnxError("a number that does not end")


def message(value: int | memoryview) -> memoryview:
    """The bytes of a field that holds a message."""
    if isinstance(value, int):
        raise NotOnnxError("a number in the place of a message")
    return value


def text(value: int | memoryview) -> str:
    """A field that holds text."""
    try:
        return bytes(message(value)).decode()
    except UnicodeDecodeError:
        raise NotOnnxError("a name that is not UTF-8") from None


def text_of(fields: list[Field], number: int) -> str:
    """The last value of a text field, as protobuf reads it; empty where there is none."""
    return next((text(value) for found, value in reversed(fields) if found == number), "")
