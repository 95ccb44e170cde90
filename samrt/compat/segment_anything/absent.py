"""Names of Meta's package that samrt has nothing for: they can be imported and used in annotations, not called."""

from __future__ import annotations

from typing import Any, NoReturn

from samrt.errors import SamrtError


class NotInSamrtError(SamrtError, NotImplementedError):
    """A part of Meta's package that samrt does not have."""


def absent(name: str, instead: str) -> type[Any]:
    """A class of this name that raises `NotInSamrtError` when it is constructed."""

    def refuse(self: object, *_: Any, **__: Any) -> NoReturn:
        raise NotInSamrtError(f"samrt has no {name}; {instead}")

    return type(name, (), {"__init__": refuse, "__doc__": f"Not in samrt: {instead}."})
