"""What makes exports cheap enough to make many in the tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from torch import Tensor, nn

from samrt.bundle.contract import Graph
from samrt_export import forms, onnx_export
from samrt_export.models.sam import DecoderGraph

PERFECT = {"embedding_relative_l2": 0.0, "prompts": {}}


def reuse(bundle: Path, monkeypatch: pytest.MonkeyPatch, only_decoder: bool = False) -> None:
    """Take graphs from a bundle instead of tracing them; they are compared with the checkpoint as always."""

    def export_graph(
        module: nn.Module, graph: Graph, samples: tuple[Tensor, ...], folder: Path, weights: str = ""
    ) -> None:
        if only_decoder and not isinstance(module, DecoderGraph):
            return onnx_export.export_graph(module, graph, samples, folder, weights)
        for name in filter(None, (graph.file, weights)):
            shutil.copyfile(bundle / name, folder / name)
        return None

    monkeypatch.setattr(forms, "export_graph", export_graph)
