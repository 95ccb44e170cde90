"""ViT-B's and ViT-H's image encoder in torch with our kernel, beside eager, fused and compiled ones of torch's."""

from __future__ import annotations

import importlib.util

import kernel_library
from isolated import Isolated
from work import NotHereError, Work


def run(work: Work) -> None:
    if importlib.util.find_spec("torch") is None:
        raise NotHereError("torch is not installed")
    kernel_library.use(work)
    worker = Isolated(work, "encoders", silence_s=90)
    for keys, value in worker:
        work.take([(keys, value)])
        found = work.of("encoders")[keys[0]]
        times = [
            (one["ms"], name)
            for name, one in found.items()
            if isinstance(one, dict) and {"ms", "as called"} <= one.keys()
        ]
        work.record(keys[0], "fastest first", value=sorted(times))
    work.record("process", value=worker.account)
