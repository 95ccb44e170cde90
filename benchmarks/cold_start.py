"""Time to the first mask: a new process imports samrt, loads a bundle, encodes a photograph and predicts one mask.

Each round is a new process. After the first round, the files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from report import add_output, write_report
from side_by_side import machine

STEPS = ("import samrt", "load the bundle", "encode the image", "predict a mask")
# What a newcomer's program would do, with a clock.
PROGRAM = """
import json, sys, time
clock = [time.perf_counter()]
import samrt
clock.append(time.perf_counter())
model = samrt.load(sys.argv[1])
clock.append(time.perf_counter())
embedding = model.encode(sys.argv[2])
clock.append(time.perf_counter())
height, width = embedding.original_size
box = [width // 4, height // 4, 3 * width // 4, 3 * height // 4]
model.predict(embedding, box=box, multimask_output=False)
clock.append(time.perf_counter())
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
modules = [name for name in ("torch", "onnx", "samrt_export") if name in sys.modules]
print(json.dumps({"seconds": [b - a for a, b in zip(clock, clock[1:])], "peak": peak, "unwanted": modules}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="a bundle's folder")
    parser.add_argument("image", type=Path)
    parser.add_argument("--python", default=sys.executable, help="the interpreter whose samrt is measured")
    parser.add_argument("--rounds", type=int, default=7)
    add_output(parser)
    arguments = parser.parse_args()
    # -I: not the samrt of the current folder.
    command = [arguments.python, "-I", "-c", PROGRAM, str(arguments.bundle), str(arguments.image)]
    rounds = [json.loads(subprocess.check_output(command)) for _ in range(arguments.rounds + 1)][1:]
    unwanted = rounds[0]["unwanted"]
    if unwanted:
        sys.exit(f"the runtime imported {', '.join(unwanted)}")
    seconds = {step: statistics.median(r["seconds"][i] for r in rounds) for i, step in enumerate(STEPS)}
    total = statistics.median(sum(r["seconds"]) for r in rounds)
    peak = statistics.median(r["peak"] for r in rounds) / 2**20
    for step, value in {**seconds, "together": total}.items():
        print(f"{step:18} {value:6.2f} s")
    print(f"peak of memory     {peak:6.2f} GiB")
    if arguments.output:
        report = {
            "benchmark": "cold_start",
            "machine": machine(),
            "bundle": json.loads((arguments.bundle / "manifest.json").read_text(encoding="utf-8"))["variant"],
            "median_seconds": {step: round(value, 4) for step, value in seconds.items()},
            "median_seconds_together": round(total, 4),
            "peak_rss_gib": round(peak, 3),
        }
        write_report(arguments.output, report)


if __name__ == "__main__":
    main()
