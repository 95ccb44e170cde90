"""Options of all commands: negative numbers, options given twice."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from samrt import cli
from samrt.cli.parser import Parser

# Each command with what it cannot do without.
COMMANDS = {
    "segment": ["photo.png"],
    "info": [],
    "eval": ["data"],
    "doctor": [],
    "export": ["sam.pth", "-o", "bundle"],
    "build": ["bundle"],
}
LISTS = {
    ("segment", "--point"),
    ("segment", "--box"),
    ("eval", "--prompts"),
    ("export", "--precision"),
    ("export", "--lowering"),
    ("build", "--compute-capability"),
}
# Two values for each option that does not take any word.
VALUES = {
    "--point": ("1,2", "3,4,0"),
    "--box": ("1,2,3,4", "5,6,7,8"),
    "--region": ("1,2,3,4", "5,6,7,8"),
    "--lowering": ("dense", "chunked"),
    "--compute-capability": ("8.6", "8.9"),
    "--output": ("a.png", "b.png"),
    "--time-limit": ("1.5", "2.5"),
}


def _options() -> Iterator[tuple[str, argparse.Action]]:
    assert set(COMMANDS) == set(cli._COMMANDS)
    for command in COMMANDS:
        for action in _parser_of(command)._actions:
            if action.option_strings and action.nargs != 0:
                yield command, action


def _parser_of(command: str) -> argparse.ArgumentParser:
    (commands,) = (
        action for action in cli._parser([command])._actions if action.dest == "==SUPPRESS==" or action.choices
    )
    return commands.choices[command]  # type: ignore[index]


def _two_values(action: argparse.Action) -> tuple[str, str]:
    if action.choices is not None:
        first, second, *_ = action.choices
        return first, second
    return VALUES.get(action.option_strings[-1], ("1", "2") if action.type is int else ("this", "that"))


@pytest.mark.parametrize(
    ("command", "action"), [pytest.param(*each, id=f"{each[0]} {each[1].option_strings[-1]}") for each in _options()]
)
def test_an_option_given_twice_accumulates_or_is_refused(
    command: str, action: argparse.Action, capsys: pytest.CaptureFixture[str]
) -> None:
    name, (first, second) = action.option_strings[-1], _two_values(action)
    # An output that the command needs is among its words already; it must not be the second.
    needed = COMMANDS[command][: 1 if name == "--output" else None]

    def parse(*values: str) -> Any:
        words = [command, *needed, *(word for value in values for word in (name, value))]
        return getattr(cli._parser(words).parse_args(words), action.dest)

    if (command, name) in LISTS:
        assert len(parse(first)) == 1
        assert list(parse(first, second)) == [*parse(first), *parse(second)]
        return
    parse(first)
    # Also where the first is the default.
    for once, twice in ((first, second), (second, first)):
        with pytest.raises(SystemExit, match="2"):
            parse(once, twice)
        line = capsys.readouterr().err.splitlines()[-1]
        assert f"given twice, as {once} and as {twice}; give it once" in line
        assert name in line


def test_every_list_is_found() -> None:
    assert {(command, action.option_strings[-1]) for command, action in _options()} >= LISTS


@pytest.mark.parametrize(
    "word", ["-3,10,50,60", "-0.5,10,50,60", "-.5,1,2,3", "-1e-3,1,2,3", "-3, 10, 50, 60", "-inf,1,2,3"]
)
@pytest.mark.parametrize("form", ["apart", "joined"])
def test_a_value_may_begin_with_a_minus(word: str, form: str) -> None:
    given = [f"--box={word}"] if form == "joined" else ["--box", word]
    words = ["segment", *given, "photo.png", "--point", "-1,5", "--threads", "-2", "--json", "-", "-o", "-7.png"]
    found = cli._parser(words).parse_args(words)
    assert found.box == [tuple(float(each) for each in word.split(","))]
    assert found.images == [Path("photo.png")]
    assert (found.point, found.threads, found.json, found.output) == ([(-1, 5, 1)], -2, "-", Path("-7.png"))


def test_a_negative_region_is_one_value() -> None:
    words = ["segment", "photo.png", "--region", "-5,0,10,10", "--point", "1,1"]
    assert cli._parser(words).parse_args(words).region == (-5, 0, 10, 10)


def test_other_words_with_a_minus_are_options_and_nothing_is_joined_after_two() -> None:
    parser = Parser()
    parser.add_argument("--name")
    parser.add_argument("rest", nargs="*")
    assert parser.parse_args(["--", "--name", "-3"]).rest == ["--name", "-3"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--name", "-information"])
