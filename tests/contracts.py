"""Contracts of SAM's own design, for tests that need no checkpoint and no torch."""

from __future__ import annotations

from samrt.bundle.contract import Contract, Feature, Geometry, Graph, MaskOutputs, Normalization

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
MEAN_STD = Normalization("mean_std", mean=MEAN, std=STD)


def geometry(side: int, low_res: int | None = None, normalization: Normalization = MEAN_STD) -> Geometry:
    """One frame for the encoder and the prompts; the longer side is resized to it."""
    return Geometry(side, side, low_res or side // 4, normalization)


def sam_contract(side: int, shape: tuple[int, int, int], normalization: Normalization = MEAN_STD) -> Contract:
    """One feature of this shape, [C, h, w]; low-res masks of four times its side."""
    return Contract(geometry(side, 4 * shape[1], normalization), (Feature("image_embeddings", shape),), MaskOutputs())


def sam_graph(role: str, file: str, side: int, shape: tuple[int, int, int]) -> Graph:
    return sam_contract(side, shape).graph(role, file)
