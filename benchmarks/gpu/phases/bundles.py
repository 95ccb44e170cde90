"""One bundle per model and lowering, each with its fp16 form and the float32 one that it is compared with.

They take minutes, and are made where something here runs them: a TensorRT, or ONNX Runtime's CUDA provider.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

import bundles
import models
from work import NotHereError, Work

from phases import onnxruntime_cuda, tensorrt
from samrt.engines.flavours import FLAVOURS

_ENOUGH_CORES = 8


def run(work: Work) -> None:
    if not (work.smoke or onnxruntime_cuda.is_here() or any(tensorrt.runs(work, flavour) for flavour in FLAVOURS)):
        raise NotHereError("neither a TensorRT nor ONNX Runtime's CUDA provider runs on this device")
    began = time.monotonic()
    jobs: list[bundles.Job] = []
    for name in models.chosen(work.smoke):
        traced = work.folder / "traced" / name
        traced.mkdir(parents=True)
        jobs += bundles.jobs(models.checkpoint(name, work.folder), traced, work.smoke)
    _trace_all(jobs)
    for name in models.chosen(work.smoke):
        for lowering in bundles.lowerings(work.smoke):
            checkpoint, traced = models.checkpoint(name, work.folder), work.folder / "traced" / name
            target = bundles.path_of(work.folder, name, lowering)
            bundles.write_bundle(checkpoint, traced, lowering, work.smoke, target)
            sizes = {file.name: file.stat().st_size for file in sorted(target.iterdir())}
            work.record("bundles", target.name, value=sizes)
    work.record("seconds", value=round(time.monotonic() - began, 1))


def _trace_all(jobs: list[bundles.Job]) -> None:
    if (os.cpu_count() or 1) < _ENOUGH_CORES:
        for job in jobs:
            bundles.trace(job)
        return
    # Tracing uses one core; a process each, as torch's tracer is not for threads.
    with ProcessPoolExecutor(_ENOUGH_CORES, multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(bundles.trace, job) for job in jobs]:
            future.result()
