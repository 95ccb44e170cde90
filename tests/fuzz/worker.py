"""Runs the inputs of one target, one after the other, in a process of its own that `supervision.py` watches.

Lines on stdout: "ready JSON" after the set-up, with the target's `KNOWN`, then for each input "done WORD" or "finding
JSON", and "end". The input is written to the file `current` before it is run, so that it is known whatever becomes of
the process.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib.util
import itertools
import json
import os
import random
import resource
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

_TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_TESTS.parent), str(_TESTS)]

from fuzz.mutations import mutate_bytes  # noqa: E402

_STATM = os.open("/proc/self/statm", os.O_RDONLY)
_MEMORY = 1 << 30  # by which the process may grow, where the target names no other number


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("target", "folder"):
        parser.add_argument(name, type=Path)
    for name in ("seed", "first", "count"):
        parser.add_argument(name, type=int)
    parser.add_argument("input", type=Path, nargs="?")
    given = parser.parse_args()
    # What libraries print goes to the file of their errors, not into the report.
    report = os.dup(1)
    os.dup2(2, 1)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    target = load_target(given.target)
    work = given.folder / "work"
    work.mkdir(exist_ok=True)
    state = target.setup(work) if hasattr(target, "setup") else None
    inputs = iter([given.input.read_bytes()]) if given.input else make_inputs(target, given)
    allowed = getattr(target, "MEMORY", _MEMORY)
    space, start = _memory()
    # The second line of defence: an allocation fails before the machine has no memory left.
    resource.setrlimit(resource.RLIMIT_AS, (space + 4 * allowed,) * 2)
    current = os.open(given.folder / "current", os.O_RDWR | os.O_CREAT)
    os.write(report, b"ready " + json.dumps(getattr(target, "KNOWN", {})).encode() + b"\n")
    for data in inputs:
        os.ftruncate(current, 0)
        os.pwrite(current, data, 0)
        os.ftruncate(2, 0)
        before = _memory()[1]
        line = _run(target, data, state)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        over = peak - start > allowed
        if over:
            sizes = f"{start >> 20} MiB after the set-up, {before >> 20} before the input, then {peak >> 20}"
            line = _finding(
                data, "memory", "memory", f"resident memory: {sizes}; allowed are {allowed >> 20} more\n{line}"
            )
        os.write(report, line.encode() + b"\n")
        if over or (hasattr(target, "spent") and target.spent(state)):
            break  # the peak stays as it is
    os.write(report, b"end\n")


def load_target(path: Path) -> ModuleType:
    """The target's module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no target")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_inputs(target: ModuleType, given: argparse.Namespace) -> Iterator[bytes]:
    """The target's corpus, then changes of it without end: input number i depends on the seed and on i only."""
    folder = given.folder / "corpus"
    folder.mkdir(exist_ok=True)
    corpus = target.corpus(folder)
    change = getattr(target, "mutate", None)
    for index in itertools.islice(itertools.count(given.first), given.count):
        if index < len(corpus):
            yield corpus[index]
            continue
        rng = random.Random(f"{given.seed} {given.target.stem} {index}")
        data = rng.choice(corpus)
        if change is None or rng.random() < 0.2:
            yield mutate_bytes(data, rng, rng.choice(corpus))
        else:
            yield change(data, rng)


def _run(target: ModuleType, data: bytes, state: Any) -> str:
    try:
        word = target.run(data, state)
        return f"done {word}"
    except BaseException as error:
        # samrt's own InputError is an AssertionError too, and none of the target's checks.
        kind = "wrong result" if type(error) is AssertionError else "untyped error"
        frames = traceback.extract_tb(error.__traceback__)
        place = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if __file__ != frame.filename]
        return _finding(data, kind, f"{type(error).__name__} {' '.join(place[-4:])}", traceback.format_exc())


def _finding(data: bytes, kind: str, signature: str, text: str) -> str:
    # With the input: `current` is the next one's by the time that this is read.
    return "finding " + json.dumps({"input": data.hex(), "kind": kind, "signature": signature, "text": text})


def _memory() -> tuple[int, int]:
    """Bytes of address space and of resident memory."""
    space, resident = os.pread(_STATM, 100, 0).split()[:2]
    return int(space) * resource.getpagesize(), int(resident) * resource.getpagesize()


if __name__ == "__main__":
    main()
