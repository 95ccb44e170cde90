"""Errors of samrt. Each says what was wrong and what to do about it.

try:
    samrt.load("vit_b", backend="tensorrt")
except samrt.SamrtError as error:
    print(error.facts, error.remedy)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from samrt.visible import visible

# Functions that a remedy may name, as a Python caller imports them.
CALLS = {"build_bundle": "samrt.build_bundle", "export": "samrt_export.export"}

_NAME = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Remedy:
    """What to do about an error. `str(remedy)` says it to a Python caller; the command line says the same in flags.

    Attributes:
        text: what to do, with names of arguments and of `CALLS` in braces: "export it with {precisions}".
        arguments: the values to give to those arguments, by name; one without a value is only named.
    """

    text: str
    arguments: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.said(_in_python)

    def said(self, name: Callable[[str, object], str]) -> str:
        """The text, with what `name` makes of each name in braces and its value; None is no value."""
        return visible(_NAME.sub(lambda match: name(match[1], self.arguments.get(match[1])), self.text))


def _in_python(name: str, value: object) -> str:
    return CALLS.get(name, name) if value is None else f"{name}={value!r}"


@dataclass(frozen=True)
class Reason:
    """Why something cannot be done or was not chosen, and what to do about it. The facts are `visible` text."""

    facts: str
    remedy: Remedy | None = None

    def __post_init__(self) -> None:
        # They quote files and libraries.
        object.__setattr__(self, "facts", visible(self.facts))

    def __str__(self) -> str:
        return self.facts if self.remedy is None else f"{self.facts}; {self.remedy}"


class SamrtError(Exception):
    """Base of every error that samrt raises on purpose. Its text is `facts; remedy`: one line, fit for a terminal.

    Control characters in it, which may come from a file, are escaped (`\\x1b`), and more than 4,096 are shortened.

    Attributes:
        facts: what was wrong. Where `remedy` is None, also what to do about it.
        remedy: what to do about it, where that depends on arguments of samrt's functions.
    """

    def __init__(self, facts: str, remedy: Remedy | None = None) -> None:
        reason = Reason(facts, remedy)
        super().__init__(str(reason))
        self.facts = reason.facts
        self.remedy = remedy

    @property
    def reason(self) -> Reason:
        """Facts and remedy."""
        return Reason(self.facts, self.remedy)


class InputError(SamrtError, ValueError, AssertionError):
    """An image or a prompt that cannot be used.

    It is a `ValueError`; it is an `AssertionError` too because Meta's `SamPredictor` checks its input with asserts,
    and code written for it may catch those.
    """


class BundleError(SamrtError, ValueError):
    """A bundle, embedding or checkpoint file that is missing, damaged, tampered with or of another kind."""


class BackendError(SamrtError, RuntimeError):
    """A backend that is unknown, not installed, or failed to run."""


class OutputError(SamrtError, OSError):
    """A file that could not be written; what was there before is untouched."""


class ExportError(SamrtError, RuntimeError):
    """An export that failed, or whose result differs from the checkpoint by more than the tolerance."""
