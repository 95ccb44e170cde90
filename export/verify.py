"""Comparing what was exported with what the checkpoint says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from samrt.bundle.contract import ROLES, Graph
from samrt.bundle.precisions import PRECISIONS
from samrt.errors import ExportError, Remedy
from samrt.verification.compare import Arrays, Reference, Run, make_reference, past_tolerance
from samrt_export.families import LoadedModel


def checkpoint_reference(loaded: LoadedModel) -> Reference:
    """What the checkpoint's float32 model in torch makes of the seeded scene."""
    encoder, decoder = (in_torch(loaded.module(role), loaded.contract.graph(role, "")) for role in ROLES)
    return make_reference(loaded.contract, encoder, decoder)


def in_torch(module: nn.Module, graph: Graph) -> Run:
    """A module of `models.sam` as a graph: named arrays in, named arrays out."""

    def run(inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            outputs = module(*(torch.from_numpy(inputs[tensor.name]) for tensor in graph.inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {tensor.name: output.numpy() for tensor, output in zip(graph.outputs, outputs, strict=True)}

    return run


def check(figures: Mapping[str, Any], precision: str) -> None:
    """Compare the figures with the tolerance of the precision.

    Raises:
        ExportError: one is past it, or not a number; the message says which, and by how much.
    """
    if past := past_tolerance(figures, PRECISIONS[precision].tolerance):
        raise ExportError(
            f"the exported graphs differ from the checkpoint by more than the tolerance ({'; '.join(past)}). Nothing "
            "was written; please report it with these figures",
            None if precision == "fp32" else Remedy("export with {precisions} meanwhile", {"precisions": ("fp32",)}),
        )
