"""Opening each engine that was found correct, with and without CUDA graphs, on a stream that the clock can see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bundles
from driver import Driver
from phases import engines
from work import NotHereError, Work

MODEL = "vit_b"


def names(work: Work) -> list[tuple[str, str, str, bool]]:
    """Name, flavour, lowering and CUDA graphs of each contender.

    Raises:
        NotHereError: none of the engines was built and found correct.
    """
    usable = engines.usable(work, MODEL)
    if not usable:
        raise NotHereError("no engine was built and found correct; see the phases tensorrt and engines")
    return [
        (f"{flavour} {lowering}, CUDA graphs {'on' if graphs else 'off'}", flavour, lowering, graphs)
        for flavour, lowering in usable
        for graphs in (False, True)
    ]


@contextmanager
def session(work: Work, driver: Driver, flavour: str, lowering: str, graphs: bool) -> Iterator[tuple[Any, int]]:
    """The open session of a contender, and its stream."""
    from samrt.backends.session import open_session
    from samrt.bundle.folder import open_bundle
    from samrt.device.session import DeviceOptions

    stream = driver.new_stream()
    options = DeviceOptions(stream=stream, cuda_graphs=graphs)
    bundle = open_bundle(bundles.path_of(work.folder, MODEL, lowering))
    with open_session(bundle, flavour, options) as opened:
        yield opened, stream


def graph_state(engine: Any) -> str:
    """What the engine says of its CUDA graphs: "on", "off", or why not."""
    return str(getattr(engine, "cuda_graphs", "not told"))
