"""The library speaks to Python callers; the command line says the same in flags."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import write_data_set
from PIL import Image

import samrt
from samrt.cli import _COMMANDS, main
from samrt.cli.parser import Parser
from samrt.cli.remedies import in_flags
from samrt.errors import BackendError, Remedy

pytest_plugins = ("toy_fixtures",)

ROOT = Path(__file__).parents[2]
# Words that look like a command line of samrt; `samrt doctor` may be named, as it has no other name.
COMMAND = re.compile(rf"samrt ({'|'.join(name for name in _COMMANDS if name != 'doctor')})\b")


def flags() -> set[str]:
    """Every flag of every command, without those that argparse adds."""
    found: set[str] = set()
    for name in _COMMANDS:
        parser = Parser(add_help=False)
        importlib.import_module(f"samrt.cli.{name}").add_arguments(parser)
        found |= set(parser._option_string_actions)
    return found


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The string constants of a source file, docstrings and parts of f-strings among them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_the_library_names_no_flag_and_no_command() -> None:
    known = flags()
    assert {"-o", "--precision", "--max-prompts", "--restart"} <= known
    # Whoever runs another's program through samrt/compat has no Python of samrt's in reach, but a shell.
    sources = [path for path in (ROOT / "samrt").rglob("*.py") if not {"cli", "compat"} & {*path.parts}]
    sources += (ROOT / "export").rglob("*.py")
    named = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in sorted(sources)
        for line, text in texts(path)
        for word in (*re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text), *COMMAND.findall(text))
        if not word.startswith("-") or word in known
    ]
    assert named == []


def test_every_argument_that_a_remedy_names_is_a_flag() -> None:
    """Found in the sources: names in braces in the first argument of `Remedy`."""
    known, seen = flags(), set()
    for path in (*(ROOT / "samrt").rglob("*.py"), *(ROOT / "export").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Remedy":
                seen |= {name for text in texts_in(node.args[0]) for name in re.findall(r"\{([a-z_]+)\}", text)}
    assert {"precisions", "output", "max_prompts", "build_bundle"} <= seen
    for name in seen:
        said = Remedy(f"{{{name}}}")
        words = in_flags(BackendError("", said).reason).removeprefix("; ")
        assert words in known or words.strip("`").removeprefix("samrt ") in _COMMANDS, (name, words)
        assert "{" not in str(said)


def texts_in(node: ast.AST) -> list[str]:
    return [each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)]


def test_one_reason_in_both_languages() -> None:
    remedy = Remedy(
        "export it with {precisions}, choose another {output} or {restart}",
        {"precisions": ("fp32", "fp16"), "restart": True},
    )
    error = samrt.BackendError("there is no engine", remedy)
    assert str(error) == (
        "there is no engine; export it with precisions=('fp32', 'fp16'), choose another output or restart=True"
    )
    assert in_flags(error.reason) == (
        "there is no engine; export it with --precision fp32,fp16, choose another -o or --restart"
    )
    assert in_flags(samrt.OutputError("the disk {is} full").reason) == "the disk {is} full"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("info absent", "there is no bundle at absent; check the path, or make one with `samrt export`"),
        ("build {bundle}", "it holds fp32-dense; export it with --precision fp32,fp16"),
        ("segment photo.png --point 3,4 --bundle {bundle} --backend tensorrt", "`samrt build` (--backend tensorrt)"),
        ("eval shapes --prompts box --bundle {bundle} -o shapes", "shapes is a data set; choose another folder (-o)"),
        (
            "eval shapes --prompts box --bundle {bundle} -o used",
            "choose another folder (-o), or start anew with --restart",
        ),
    ],
)
def test_the_command_line_names_flags(
    command: str,
    said: str,
    toy_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data_set(tmp_path / "shapes")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save("photo.png")
    Path("used").mkdir()
    Path("used/results.json").write_text('{"format": "samrt-evaluation", "data_sets": [{"name": "cups"}]}')
    assert main(command.format(bundle=toy_bundle).split()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
