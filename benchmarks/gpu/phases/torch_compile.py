"""The same model with torch.compile, torch's fastest mode; the compile time is reported separately."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

from work import NotHereError, Work

_MARGIN_S = 20  # not begun with less time left


def run(work: Work) -> None:
    if importlib.util.find_spec("torch") is None:
        raise NotHereError("torch is not installed")
    if work.smoke:
        raise NotHereError("compiling takes minutes on a CPU and measures nothing of a GPU")
    from torch_forms import COMPILED
    from torch_peers import Peers

    peers = Peers(work)
    for name, attend in COMPILED.items():
        _timed(work, ("encoder", name), lambda prepare, attend=attend: peers.encoder(attend, prepare))
    _timed(work, ("decoder",), peers.decoder)


def _timed(work: Work, keys: tuple[str, ...], measure: Callable[[Callable[[Any], Any]], dict[str, Any]]) -> None:
    import torch

    if work.seconds_left < _MARGIN_S:
        work.record(*keys, value={"absent": f"{work.seconds_left:.0f} s were left"})
        return

    def call() -> dict[str, Any]:
        torch.compiler.reset()
        # No CUDA graphs of its own: they are measured apart, as for the others.
        began = time.monotonic()
        measured = measure(lambda module: torch.compile(module, fullgraph=True, dynamic=False))
        return {**measured, "seconds_in_all": round(time.monotonic() - began, 1)}

    work.attempt(*keys, call=call)
