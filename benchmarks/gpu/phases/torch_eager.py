"""The same model in torch, eager, in half precision: forms of attention, and the fused kernels that torch offers."""

from __future__ import annotations

import importlib.util
from typing import Any

import contenders
from floors import floor
from work import NotHereError, Work


def run(work: Work) -> None:
    if importlib.util.find_spec("torch") is None:
        raise NotHereError("torch is not installed")
    from torch_forms import EAGER
    from torch_peers import Peers

    for graph in ("encoder", "decoder"):
        work.record("floor", graph, value=floor(work, contenders.MODEL, graph))
    peers = Peers(work)
    for name, attend in EAGER.items():
        work.attempt("encoder", name, call=lambda attend=attend: peers.encoder(attend))
    work.attempt("decoder", call=peers.decoder)
    if not work.smoke:
        _kernels(work, peers)


def _kernels(work: Work, peers: Any) -> None:
    """Times of each of torch's fused kernels with each form of attention, or the error of a kernel that refuses it."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch_forms import sdpa_augmented, sdpa_bias

    for form in (sdpa_augmented, sdpa_bias):
        for kernel in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION"):

            def measure(form: Any = form, kernel: str = kernel) -> dict[str, Any]:
                with sdpa_kernel(getattr(SDPBackend, kernel)):
                    return peers.encoder(form)

            work.attempt("encoder by kernel", f"{form.__name__} {kernel}", call=measure)
