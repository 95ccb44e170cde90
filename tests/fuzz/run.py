"""Feeds changed files and values to samrt's public borders, and keeps the inputs that make it fail.

    python tests/fuzz/run.py [TARGET ...] --seconds 60 --seed 1 --findings FOLDER
    python tests/fuzz/run.py TARGET --input FILE

A target is a name in tests/fuzz/targets, or a path. It fails where its process crashes, answers nothing for 20 s, grows
by more memory than the target allows, raises an error that is none of samrt's, or takes an input and returns what is
wrong. The same seed makes the same inputs. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.supervision import Supervision

_TARGETS = Path(__file__).resolve().parent / "targets"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all of tests/fuzz/targets if none is named")
    parser.add_argument("--seconds", type=float, default=60, help="for each target (60)")
    parser.add_argument("--seed", type=int, help="of the changes; another one each time if none is given")
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"), help="folder for inputs (build/fuzz)")
    parser.add_argument("--inputs", type=int, help="end after so many of each target")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time (2)")
    parser.add_argument("--limit", type=float, default=20, help="seconds for one input (20)")
    parser.add_argument("--input", type=Path, help="run this file only, and show what it does")
    given = parser.parse_args()
    paths = [_path(name) for name in given.targets] or sorted(_TARGETS.glob("*.py"))
    if given.input and len(paths) != 1:
        parser.error("--input needs one target")
    seed = random.randrange(10**6) if given.seed is None else given.seed
    file = given.input and given.input.resolve()
    runs = [
        Supervision(path, given.findings, seed, given.seconds, given.limit, count=given.inputs, input=file)
        for path in paths
    ]
    if not given.input:
        print(f"seed {seed}, {given.seconds:g} s for each of {', '.join(run.name for run in runs)}", flush=True)
    _run_all(runs, given.jobs)
    if given.input:
        print("\n".join(runs[0].texts or runs[0].outcomes))
    else:
        print("\n".join(_table(runs)))
        if any(run.kinds for run in runs):
            print(f"inputs that failed are in {given.findings}; run one again with TARGET --input FILE")
    return int(any(run.kinds for run in runs))


def _path(name: str) -> Path:
    path = Path(name) if name.endswith(".py") else _TARGETS / f"{name}.py"
    if not path.is_file():
        raise SystemExit(
            f"there is no target {name}; there are {', '.join(sorted(p.stem for p in _TARGETS.glob('*.py')))}"
        )
    return path.resolve()


def _run_all(runs: list[Supervision], jobs: int) -> None:
    stop = Event()
    # As Ctrl-C, so that no worker stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            waiting = [pool.submit(run.run, stop) for run in runs]
            shown = time.monotonic()
            while not all(future.done() for future in waiting):
                time.sleep(0.1)
                if time.monotonic() - shown > 10:
                    shown = time.monotonic()
                    active = [run for run, future in zip(runs, waiting, strict=True) if future.running()]
                    print("  ".join(map(_progress, active)), flush=True)
        except KeyboardInterrupt:
            stop.set()
            print("stopped", flush=True)
    for future in waiting:
        if not future.cancelled():
            future.result()


def _progress(run: Supervision) -> str:
    return f"{run.name}: {run.elapsed:.0f} s, {run.inputs:,} inputs, {run.kinds.total()} findings"


def _table(runs: list[Supervision]) -> list[str]:
    rows = [("target", "inputs", "per s", "memory", "findings", "outcomes")]
    for run in runs:
        rate = run.inputs / run.elapsed if run.elapsed else 0
        memory = f"+{run.growth >> 20} MiB"
        rows.append(
            (run.name, f"{run.inputs:,}", f"{rate:.0f}", memory, _counts(run.kinds) or "0", _counts(run.outcomes))
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{word} {count:,}" for word, count in counter.most_common())


if __name__ == "__main__":
    sys.exit(main())
