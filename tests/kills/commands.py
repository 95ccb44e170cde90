"""The commands that are killed: how each is called, what it writes, and whether that is whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation_data import write_data_set
from toy_bundle import write_toy_bundle

from samrt.bundle.folder import open_bundle
from samrt.engines.sets import EngineSet, find_engine_sets
from samrt.files import sha256_of


@dataclass(frozen=True)
class Command:
    """A command on a place of its own, a folder `out` in which its target lies.

    Attributes:
        words: of the command line, for that folder.
        place: puts into that folder what the command finds there; where that lacks a target, it is run once before.
        again: the same for the run after the kill, which may go on where that one was.
        target: pattern of what the command writes, in that folder.
        check: fails where the target is not whole.
        patch: is called in the process before the command.
    """

    name: str
    words: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    place: Callable[[Path], object]
    target: str
    check: Callable[[Path], object]
    patch: Callable[[], object] = lambda: None


def commands(work: Path, checkpoint: Path, bundle: Path) -> list[Command]:
    """All; `bundle` is an export of `checkpoint`, the graphs of which are taken instead of tracing them anew."""
    toy, shapes = write_toy_bundle(work / "toy"), write_data_set(work / "shapes", instances=2)
    renamed, lowering = work / "renamed.pth", open_bundle(bundle).manifest.forms[0].lowering
    shutil.copyfile(checkpoint, renamed)

    def with_bundle(place: Path) -> None:
        shutil.copytree(bundle, place / "bundle")

    def with_toy(place: Path) -> None:
        shutil.copytree(toy, place / "toy")

    def with_nothing(place: Path) -> None:
        pass

    def export_words(place: Path) -> list[str]:
        return ["export", str(renamed), "-o", str(place / "bundle"), "--lowering", lowering]

    def build_words(place: Path) -> list[str]:
        options = ["--backend", "tensorrt_rtx", "--compute-capability", "8.6", "--precision", "fp32"]
        return ["build", str(place / "toy"), *options]

    def eval_words(place: Path) -> list[str]:
        options = ["--backend", "onnxruntime", "--prompts", "box,point"]
        return ["eval", str(shapes), "--bundle", str(toy), "-o", str(place / "out"), *options]

    def reuse_graphs() -> None:
        import pytest
        from export_reuse import reuse

        reuse(bundle, pytest.MonkeyPatch())

    def anew(place: Path) -> list[str]:
        return [*eval_words(place), "--restart"]

    return [
        Command("export", export_words, export_words, with_bundle, "bundle", open_bundle, reuse_graphs),
        Command("build", build_words, build_words, with_toy, "toy/engines/[!.]*", _check_engines),
        Command("eval", eval_words, eval_words, with_nothing, "out/results.json", _check_results),
        Command("eval --restart", anew, eval_words, with_nothing, "out/results.json", _check_results),
    ]


def without_exchange(command: Command) -> Command:
    """As on a system that cannot exchange two names."""

    def patch() -> None:
        from samrt import files

        command.patch()
        files.exchange = lambda one, other: False

    return replace(command, name=f"{command.name}, two renames", patch=patch)


def content(place: Path, hidden: bool = False) -> dict[str, str]:
    """What lies there, by name; JSON without the times that it holds. Hidden names only on demand."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if hidden or not any(part.startswith(".") for part in Path(name).parts):
            found[name] = "folder" if path.is_dir() else _content(path)
    return found


def hidden(place: Path) -> list[str]:
    """Leftovers, without what lies in one."""
    names = []
    for folder, folders, files in os.walk(place):
        names += [os.path.join(folder, name) for name in [*folders, *files] if name.startswith(".")]
        folders[:] = [name for name in folders if not name.startswith(".")]
    return names


def _content(path: Path) -> str:
    if path.name == "engine.json":
        return str(
            {role: sorted(engine["content"]) for role, engine in json.loads(path.read_text())["engines"].items()}
        )
    if path.suffix == ".engine":
        return "engine"  # differs between builds; `check` compares it with engine.json
    if path.suffix == ".jsonl":
        return str(sorted(path.read_text().splitlines()))
    return sha256_of(path)


def _check_engines(engines: Path) -> None:
    for found in find_engine_sets(engines.parents[1]):
        if not isinstance(found, EngineSet):
            raise AssertionError(f"{found.folder}: {found.problem}")
        for role in found.manifest.engines:
            found.verified(role)


def _check_results(results: Path) -> None:
    json.loads(results.read_text())
    for picture in results.parent.glob("*.png"):
        if not picture.read_bytes().endswith(b"IEND\xaeB`\x82"):
            raise AssertionError(f"{picture} is cut short")
