"""Limits and the shapes that follow from them."""

from __future__ import annotations

import pytest
from contracts import sam_graph

from samrt.bundle.contract import Graph, Tensor
from samrt.engines.profiles import BuildLimits, Range, ranges
from samrt.errors import BundleError, InputError


def graph(name: str) -> Graph:
    return sam_graph(name, f"{name}.onnx", 64, (8, 4, 4))


def test_encoder() -> None:
    assert ranges(graph("image_encoder"), BuildLimits(max_batch=3)) == {
        "image": Range((1, 3, 64, 64), (1, 3, 64, 64), (3, 3, 64, 64))
    }


def test_decoder() -> None:
    assert ranges(graph("mask_decoder"), BuildLimits(max_prompts=5, max_points=7)) == {
        "image_embeddings": Range((1, 8, 4, 4), (1, 8, 4, 4), (1, 8, 4, 4)),
        "point_coords": Range((1, 0, 2), (1, 2, 2), (5, 7, 2)),
        "point_labels": Range((1, 0), (1, 2), (5, 7)),
        "mask_input": Range((1, 1, 16, 16), (1, 1, 16, 16), (5, 1, 16, 16)),
        "has_mask_input": Range((1,), (1,), (5,)),
    }


def test_a_point_comes_with_padding_so_two_are_the_fewest() -> None:
    assert ranges(graph("mask_decoder"), BuildLimits(max_points=2))["point_labels"] == Range((1, 0), (1, 2), (4, 2))
    with pytest.raises(InputError, match="max_points must be a whole number from 2 to 1024, not 1"):
        BuildLimits(max_points=1)


def test_an_unknown_axis() -> None:
    strange = Graph("encoder.onnx", (Tensor("image", "float32", ("batch", 3, "height", 64)),), ())
    with pytest.raises(BundleError, match=r"'image' of encoder\.onnx has a dynamic axis 'height'.*export"):
        ranges(strange, BuildLimits())


@pytest.mark.parametrize("value", [0, -1, 10**6, 2.0, True, "4"])
@pytest.mark.parametrize("name", ["max_batch", "max_prompts", "max_points"])
def test_limits_that_make_no_sense(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name} must be a whole number from [12] to"):
        BuildLimits(**{name: value})  # type: ignore[arg-type]
