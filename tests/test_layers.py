"""Who may import whom in samrt/, as docs/architecture.md says. Imports in functions and for types count too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SAMRT, DOCS = ROOT / "samrt", ROOT / "docs" / "architecture.md"

# By the name of a module or a package, from the top. What imports is higher than what it imports.
HEIGHT = {
    name: -line
    for line, names in enumerate(re.search(r"```\n(__main__\n.*?)```", DOCS.read_text(), re.DOTALL)[1].splitlines())
    for name in names.split(" | ")
}

# What only these may import. "?" is a name that is computed, "" is in front of a relative one.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "argparse": ("cli",),
    "samrt_export": ("cli.export",),
    "torch": (),
    "onnx": (),
    "onnxruntime": ("backends.importing",),
    "tensorrt": ("backends.tensorrt", "engines"),
    "tensorrt_rtx": ("backends.tensorrt", "engines"),
    "": (),
    "?": ("__init__", "cli", "device.driver", "doctor", "engines.flavours"),
}

LATE = "def late():\n   "


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """What a module imports, by dotted names, and whether as soon as it is imported itself."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names):
                found = [each.name for each in names]
            case ast.ImportFrom(module, names, level):
                found = [f"{'.' * level}{module}.{each.name}" for each in names]
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"), args=[name, *_]):
                found = [str(name.value) if isinstance(name, ast.Constant) else "?"]
            case _:
                continue
        yield from ((name, node.col_offset == 0) for name in found)


def nearest(name: str, known: Mapping[str, object]) -> str:
    """The longest of a dotted name's beginnings that is known; `__init__`, samrt itself, where none is."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or "__init__"


def problems(sources: Mapping[str, str]) -> list[str]:
    """The rules that modules break, by their names within samrt."""
    found, graph = [], {}
    for module, source in sources.items():
        place, graph[module] = nearest(module, HEIGHT), set()
        if place == "__init__" != module:
            found.append(f"{module} has no layer")
        for name, early in imports(source):
            top, _, rest = name.partition(".")
            if not any(f"{module}.".startswith(f"{each}.") for each in ONLY_IN.get(top, (module,))):
                found.append(f"{module} imports {top}")
            if top == "samrt_export" and early:
                found.append(f"{module} imports {top} at once")
            if top == "samrt":
                target = nearest(rest, sources)
                graph[module].add(target)
                below = nearest(target, HEIGHT)
                if place != below and HEIGHT[place] <= HEIGHT[below]:
                    found.append(f"{module} imports {target}, which is not below it")
    try:  # of a cycle in one package the layers say nothing
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"a cycle: {', '.join(error.args[1])}")
    return found


def sources() -> dict[str, str]:
    files = {path.relative_to(SAMRT).with_suffix("").parts: path for path in SAMRT.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): path.read_text() for parts, path in files.items()}


def test_modules_import_from_below_only() -> None:
    found = sources()
    assert set(HEIGHT) <= set(found)
    assert problems(found) == []


@pytest.mark.parametrize(
    ("module", "line", "message"),
    [
        (
            "bundle.folder",
            f"{LATE} from samrt.engines.sets import x",
            "bundle.folder imports engines.sets, which",
        ),
        ("model", "from samrt.engines.builder.engine import x", "model imports engines.builder.engine, which"),
        ("engines.builder.engine", "from samrt.model import x", "engines.builder.engine imports model, which"),
        (
            "engines.plugin",
            "from samrt.engines.builder import engine",
            "engines.plugin imports engines.builder.engine, ",
        ),
        (
            "verification.compare",
            "import samrt.backends.session",
            "verification.compare imports backends.session,",
        ),
        ("model", "import_module('samrt.evaluation')", "model imports evaluation, which"),
        ("files", "from samrt import load", "files imports __init__, which"),
        ("device.driver", "from samrt.device.array import x", "a cycle: device."),
        ("model", "from . import rle", "model imports "),
        ("colours", "import cv2", "colours has no layer"),
        ("predictor", f"{LATE} import torch.nn", "predictor imports torch"),
        ("cli.info", f"{LATE} from samrt_export.pipeline import x", "cli.info imports samrt_export"),
        ("cli.export", "import samrt_export", "cli.export imports samrt_export at once"),
        ("device.gpus", "importlib.import_module('tensorrt')", "device.gpus imports tensorrt"),
        ("device.gpus", "importlib.import_module(name)", "device.gpus imports ?"),
        ("evaluation.report", "from argparse import Namespace", "evaluation.report imports argparse"),
    ],
)
def test_a_broken_rule_is_named(module: str, line: str, message: str) -> None:
    found = sources()
    found[module] = f"{found.get(module, '')}\n{line}\n"
    assert [problem[: len(message)] for problem in problems(found)][:1] == [message]
