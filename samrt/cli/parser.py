"""argparse with samrt's rules: values may be negative numbers, lists accumulate, nothing else may be given twice."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from samrt.visible import visible

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

# What argparse takes for an option of its own, unless the word is one plain number.
_NEGATIVE = re.compile(r"-(\.?\d|(inf|infinity|nan)\b)", re.IGNORECASE)
# Where a namespace keeps the options that were given, until parsing ends.
_GIVEN = "_given"


class Parser(argparse.ArgumentParser):
    """The parser of every command.

    The action of an option without one refuses a second value; "accumulate" adds up the tuples of all values.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **settings)
        for name in (None, "store"):
            self.register("action", name, _Once)
        self.register("action", "accumulate", _Accumulate)

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """As argparse's, which keeps quiet about a stdout that cannot be written to."""
        (file or sys.stdout).write(self.format_help())

    def error(self, message: str) -> NoReturn:
        """As argparse's, in one line: the names of files that a shell put there may hold anything."""
        super().error(visible(message))

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, which the parser of a command goes through too."""
        words = list(sys.argv[1:] if args is None else args)
        found, rest = super().parse_known_args(self._joined(words), namespace)
        vars(found).pop(_GIVEN, None)
        return found, rest

    def _joined(self, words: list[str]) -> list[str]:
        """The words with each negative number joined to the option before it: `--box=-3,10,50,60`."""
        joined: list[str] = []
        for index, word in enumerate(words):
            if word == "--":
                return joined + words[index:]
            option = self._option_string_actions.get(joined[-1]) if joined else None
            if option is not None and option.nargs is None and _NEGATIVE.match(word):
                # A short option takes its value without a sign between them.
                joined[-1] += f"={word}" if joined[-1].startswith("--") else word
            else:
                joined.append(word)
        return joined


class _Once(argparse.Action):
    """Stores a value, and refuses a second one: which of them was meant is not known."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        given = vars(namespace).setdefault(_GIVEN, {})
        if option is not None and self.dest in given:
            raise argparse.ArgumentError(
                self, f"given twice, as {_said(given[self.dest])} and as {_said(values)}; give it once"
            )
        given[self.dest] = values
        setattr(namespace, self.dest, values)


class _Accumulate(argparse.Action):
    """Stores a tuple; the values of a second option are added to those of the first, the default is not."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        given = vars(namespace).setdefault(_GIVEN, {})
        given[self.dest] = given.get(self.dest, ()) + values
        setattr(namespace, self.dest, given[self.dest])


def words(text: str) -> tuple[str, ...]:
    """The parts of a list with commas, "fp32,fp16"; for options whose action is "accumulate"."""
    return tuple(part.strip() for part in text.split(","))


def _said(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
