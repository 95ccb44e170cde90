"""Kill `samrt export`, `build` and `eval` at random moments, and look for broken targets and leftovers.

    python -m kills 200          (in tests/; or `make kills N=200`)

Each command runs in a process of its own, forked from this one, which has imported everything and opened nothing.
`samrt export` takes the graphs of a bundle that was exported before, as tracing them takes most of its time.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from kills.commands import commands, without_exchange
from kills.trials import Trials

_COLUMNS = ("kills", "program", "old", "new", "absent", "leftovers", "remaining")
_MODULES = ("samrt_export.pipeline", "samrt_export.onnx_export", "export_reuse", "onnxruntime", "samrt.cli.export")
_MAKE = """
import sys
from dataclasses import replace
from pathlib import Path
from seeded import SMALL_VIT, seeded_checkpoint
from samrt_export.pipeline import ExportOptions, export
small = dict(image_size=64, embed_dim=16, depth=1, head_dim=8, mlp_dim=16, out_chans=16)
checkpoint = Path(sys.argv[1])
seeded_checkpoint(checkpoint, replace(SMALL_VIT, **small, window_size=0, global_blocks=(0,)))
export(checkpoint, sys.argv[2], ExportOptions(lowering="dense"))
"""


def main() -> int:
    """Kill as often as asked and print the table; 1 where something was broken or left."""
    parser = argparse.ArgumentParser(prog="kills", description="Kill commands of samrt and look at what they leave.")
    parser.add_argument("kills", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="only the command of this name; may be repeated")
    parser.add_argument("--bundle", type=Path, help="an export of --checkpoint; without it one is made")
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        checkpoint, bundle = arguments.checkpoint, arguments.bundle
        if bundle is None:
            checkpoint, bundle = work / "small.pth", work / "small.samrt"
            print("exporting a small model", flush=True)
            subprocess.run([sys.executable, "-c", _MAKE, str(checkpoint), str(bundle)], check=True)
        _import()
        found = commands(work, checkpoint, bundle)
        found += [without_exchange(each) for each in found[:2]]
        chosen = [each for each in found if each.name in (arguments.only or [each.name])]
        trials = [Trials(each, work) for each in chosen]
        return _kill(trials, arguments.kills, random.Random(arguments.seed))


def _import() -> None:
    for module in _MODULES:
        import_module(module)
    for module in ("tensorrt_rtx", "samrt.cli.build", "samrt.cli.eval", "samrt.evaluation.evaluate"):
        import_module(module)
    import torch

    torch.set_num_threads(1)  # the threads of a pool are not forked


def _kill(trials: list[Trials], kills: int, moments: random.Random) -> int:
    begun, broken, done = time.monotonic(), 0, 0
    while done < kills:
        each = min(trials, key=lambda trial: trial.counts["kills"])
        try:
            each.kill(moments)
        except Exception as error:
            each.counts["kills"] += 1
            broken += 1
            print(f"BROKEN {each.command.name}: {type(error).__name__}: {error}", flush=True)
        done = sum(trial.counts["kills"] for trial in trials)
        print(f"{done} of {kills} kills, {broken} broken, {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{'command':24}{'seconds':>9}{'files':>7}" + "".join(f"{column:>11}" for column in _COLUMNS))
    for trial in trials:
        cells = "".join(f"{trial.counts[column]:>11}" for column in _COLUMNS)
        print(f"{trial.command.name:24}{trial.seconds:>9.2f}{trial.operations:>7}{cells}")
    return 1 if broken or any(trial.counts["remaining"] for trial in trials) else 0


if __name__ == "__main__":
    sys.exit(main())
