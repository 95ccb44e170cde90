"""Measures contenders in turn, each in its own process: A B C A B C ..., so that drift of the machine affects all.

A contender is a function that prepares one call and returns it. Its process reports the seconds of each call, the
result of the last call (all results are compared), and its peak of resident memory, which includes loading the model.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report import add_output, write_report

Call = Callable[[], NDArray[np.float32]]
PACKAGES = ("samrt", "torch", "onnx", "onnxruntime", "openvino", "numpy", "opencv-python-headless", "segment-anything")


def main(script: str, contenders: Mapping[str, Callable[[Path], Call]], prepare: Callable[[Path], None]) -> None:
    """Command line of a benchmark: prepares, measures all contenders side by side, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="calls of each contender after one warm-up (default 5)")
    parser.add_argument("--cache", type=Path, default=Path(script).parent / ".cache", help="where models are kept")
    parser.add_argument("--only", nargs="+", choices=contenders, default=list(contenders), help="some contenders only")
    add_output(parser)
    parser.add_argument("--worker", choices=contenders, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        _work(contenders[arguments.worker], arguments.worker, arguments.cache)
        return
    arguments.cache.mkdir(parents=True, exist_ok=True)
    prepare(arguments.cache)
    results = _measure(script, arguments.only, arguments.cache, arguments.rounds)
    _print(results)
    if arguments.output:
        report = {"benchmark": Path(script).stem, "machine": machine(), "contenders": results}
        write_report(arguments.output, report)
        print(f"wrote {arguments.output}")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def peak_rss_kib() -> int:
    """This process's peak of resident memory. (getrusage would include the parent's, up to the exec.)"""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def _measure(script: str, names: list[str], cache: Path, rounds: int) -> dict[str, Any]:
    workers = {}
    for name in names:
        print(f"loading {name}", file=sys.stderr, flush=True)
        command = [sys.executable, script, "--worker", name, "--cache", str(cache)]
        workers[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        _ask(workers[name], None)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name, worker in workers.items():
            measured = float(_ask(worker, "run"))
            if turn:  # the first call warms up
                seconds[name].append(measured)
        print(f"round {turn} of {rounds}", file=sys.stderr, flush=True)
    results: dict[str, Any] = {}
    first: NDArray[np.float32] | None = None
    for name, worker in workers.items():
        peak = int(_ask(worker, "end"))
        worker.wait()
        result = np.load(_result_file(cache, name))
        first = result if first is None else first
        results[name] = {
            "seconds": [round(value, 5) for value in seconds[name]],
            "median_seconds": statistics.median(seconds[name]),
            "peak_rss_gib": round(peak / 2**20, 3),
            "relative_l2_to_first": _relative_l2(result, first),
        }
    for name in names:
        # Pair by pair within a round, so that drift between rounds cancels.
        results[name]["time_ratio_to"] = {
            other: round(statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True)), 3)
            for other in names
            if other != name
        }
    return results


def _relative_l2(result: NDArray[np.float32], first: NDArray[np.float32]) -> float | None:
    """None where a contender returns something else than the first."""
    return float(np.linalg.norm(result - first) / np.linalg.norm(first)) if result.shape == first.shape else None


def _print(results: Mapping[str, Any]) -> None:
    first = next(iter(results))
    print(f"{'':34} {'median':>9} {'fastest':>9} {'peak RSS':>10}   {first} takes, of its time")
    for name, result in results.items():
        ratio = results[first]["time_ratio_to"].get(name, 1.0)
        difference = result["relative_l2_to_first"]
        compared = "not compared" if difference is None else f"relative L2 {difference:.1e}"
        print(
            f"{name:34} {result['median_seconds'] * 1e3:6.1f} ms {min(result['seconds']) * 1e3:6.1f} ms "
            f"{result['peak_rss_gib']:6.2f} GiB   {ratio:.2f}   ({compared})"
        )


def _work(prepare: Callable[[Path], Call], name: str, cache: Path) -> None:
    call = prepare(cache)
    print("ready", flush=True)
    result = np.zeros(0, np.float32)
    for line in sys.stdin:
        if line.strip() == "end":
            np.save(_result_file(cache, name), result)
            print(peak_rss_kib(), flush=True)
            return
        start = time.perf_counter()
        result = call()
        print(time.perf_counter() - start, flush=True)


def _ask(worker: subprocess.Popen[str], question: str | None) -> str:
    assert worker.stdin is not None
    assert worker.stdout is not None
    if question:
        worker.stdin.write(question + "\n")
        worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise RuntimeError(f"{' '.join(map(str, worker.args))} ended with status {worker.wait()}")  # type: ignore[arg-type]
    return answer


def _result_file(cache: Path, name: str) -> Path:
    return cache / f"result_{name.replace(' ', '_').replace(',', '')}.npy"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return model + "".join(f", {flag}" for flag in ("avx2", "avx512f", "avx512_vnni", "amx_tile") if flag in flags)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
