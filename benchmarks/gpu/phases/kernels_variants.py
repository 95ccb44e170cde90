"""Variants of the attention kernel: every tile shape of the measured library and of the prebuilt ones in a folder.

The folder is $SAMRT_KERNELS_VARIANTS: libraries with this interface, under any name. Each runs in its own process. Only
correct kernels are timed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
from pathlib import Path

import kernel_library
from isolated import FINISHED, Isolated, WorkerError
from work import NotHereError, Work, WrongResultError

from samrt.kernels.library import KERNELS_VARIABLE

VARIABLE = "SAMRT_KERNELS_VARIANTS"
CORRECT, TIMES = "correct", "times"
_MEASURED = "the measured library"


def run(work: Work) -> None:
    if importlib.util.find_spec("torch") is None:
        raise NotHereError("torch is not installed")
    folder = os.environ.get(VARIABLE)
    libraries = {path.name: path for path in sorted(Path(folder).glob("*.so*"))} if folder else {}
    own = kernel_library.path_of(work)
    if own is not None:
        libraries = {_MEASURED: Path(own), **libraries}
    if not libraries:
        raise NotHereError(f"no kernel library was found, and {VARIABLE} names no folder of libraries")
    ended = []
    for index, (label, path) in enumerate(libraries.items()):
        work.record(label, "sha256", value=hashlib.sha256(path.read_bytes()).hexdigest())
        share = work.seconds_left / (len(libraries) - index)
        worker = Isolated(work, "variants", {"label": label}, {KERNELS_VARIABLE: str(path)}, seconds=share)
        with contextlib.suppress(WorkerError):
            for keys, value in worker:
                work.take([(keys, value)])
                if TIMES in keys:
                    _rank(work, list(libraries), keys[2])
        work.record(label, "process", value=worker.account)
        if worker.ended != FINISHED:
            ended.append(f"{label}: {worker.ended}")
    found = work.of("kernels_variants")
    wrong = [
        f"{label}, {kernel}, {case}"
        for label in libraries
        for kernel, outcomes in found[label].get(CORRECT, {}).items()
        for case, value in outcomes.items()
        if "error" in value
    ]
    if ended or wrong:
        raise WrongResultError("; ".join([*ended, *wrong])[:1000])


def _rank(work: Work, labels: list[str], layer: str) -> None:
    found = work.of("kernels_variants")
    times = [
        (outcome["ms"], label, name)
        for label in labels
        for name, outcome in found.get(label, {}).get(TIMES, {}).get(layer, {}).items()
        if "ms" in outcome
    ]
    work.record("fastest first", layer, value=sorted(times))
