"""Reading JSON that nobody vouches for: every complaint names its key and says what to do."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, TypeGuard, TypeVar

from samrt.errors import BundleError

T = TypeVar("T")


# What the values of a manifest may be: all that is made of them has room for these.
_DEEPEST, _LARGEST = 64, 2**63 - 1


def parse(text: str | bytes, what: str, remedy: str) -> Any:
    """The value of a short JSON text.

    Raises:
        BundleError: it is not JSON, is nested deeper than any manifest, or has an integer of more than 64 bits, a
            number that is not finite, or text that is no Unicode.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{what} is not JSON ({error}); {remedy}") from error
    level: list[Any] = [data]
    for _ in range(_DEEPEST):
        for value in level:
            if isinstance(value, int) and abs(value) > _LARGEST:
                raise BundleError(f"{what} has a number of more than 64 bits; {remedy}")
            if isinstance(value, float) and not math.isfinite(value):
                # 1e400 is one too. JSON has none, so none could be written again.
                raise BundleError(f"{what} has a number that is not finite; {remedy}")
            if isinstance(value, str) and not _is_text(value):
                raise BundleError(f"{what} has text that is not Unicode, {value[:80]!r}; {remedy}")
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return data
    raise BundleError(f"{what} is nested more than {_DEEPEST} deep; {remedy}")


def _inside(value: object) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def _is_text(value: str) -> bool:
    try:
        # As names of files may be: a byte that is not UTF-8 is half of a surrogate pair.
        value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def is_size(value: object) -> bool:
    """A positive integer of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST


def is_whole(value: object) -> bool:
    """An integer from 0 on."""
    return is_size(value) or (value == 0 and isinstance(value, int) and not isinstance(value, bool))


def is_number(value: object) -> TypeGuard[float]:
    """A finite number that a float holds."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) < 2**53  # what a float holds exactly
    return isinstance(value, float) and math.isfinite(value)


class JsonReader:
    """One JSON object and where it stands, so that every complaint names its key."""

    def __init__(self, data: object, where: str, remedy: str) -> None:
        if not isinstance(data, dict):
            raise BundleError(f"{where} must be a JSON object, not {type(data).__name__}; {remedy}")
        self._data: dict[str, Any] = data
        self.where = where
        self.remedy = remedy

    def names(self) -> list[str]:
        return list(self._data)

    def raw(self, key: str) -> Any:
        if key not in self._data:
            raise BundleError(f"{self.where} lacks {key!r}; {self.remedy}")
        return self._data[key]

    def value(self, key: str, kind: type[T]) -> T:
        value = self.raw(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._wrong(key, kind.__name__)
        return value

    def text(self, key: str) -> str:
        if not self.value(key, str):
            raise self._wrong(key, "text that is not empty")
        return self.value(key, str)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        if self.value(key, str) not in choices:
            raise self._wrong(key, f"one of {', '.join(choices)}")
        return self.value(key, str)

    def size(self, key: str) -> int:
        if not is_size(self.raw(key)):
            raise self._wrong(key, "a positive integer")
        return self.value(key, int)

    def whole(self, key: str) -> int:
        if not is_whole(self.raw(key)):
            raise self._wrong(key, "a whole number")
        return self.value(key, int)

    def number(self, key: str) -> float:
        value = self.raw(key)
        if not is_number(value):
            raise self._wrong(key, "a finite number")
        return float(value)

    def items(self, key: str, fits: Callable[[object], bool], kind: str) -> list[Any]:
        values = self.value(key, list)
        if not all(fits(value) for value in values):
            raise self._wrong(key, f"a list of {kind}")
        return values

    def child(self, key: str) -> JsonReader:
        return JsonReader(self.value(key, dict), f"{key!r} of {self.where}", self.remedy)

    def children(self, key: str) -> list[tuple[str, JsonReader]]:
        inner = self.child(key)
        return [
            (name, JsonReader(value, f"{name!r} of {inner.where}", self.remedy)) for name, value in inner._data.items()
        ]

    def list_of_children(self, key: str) -> list[JsonReader]:
        return [JsonReader(value, f"each of {key!r} of {self.where}", self.remedy) for value in self.value(key, list)]

    def _wrong(self, key: str, expected: str) -> BundleError:
        found = repr(self._data[key])[:80]
        return BundleError(f"{key!r} of {self.where} must be {expected}, not {found}; {self.remedy}")
