"""Results that would be silently wrong: graphs whose dynamic axes come out short, embeddings whose sizes disagree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from toy_bundle import rewrite_manifest

import samrt

pytest_plugins = ("toy_fixtures",)

_IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def _keep_the_first(graph: Path, output: str) -> None:
    """Let a graph return only the first of what `output` holds."""
    model = onnx.load(graph, load_external_data=False)
    for node in model.graph.node:
        node.output[:] = ["all" if name == output else name for name in node.output]
    for name, value in (("from", 0), ("to", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    model.graph.node.append(helper.make_node("Slice", ["all", "from", "to"], [output]))
    graph.write_bytes(model.SerializeToString())
    rewrite_manifest(graph.parent)


@pytest.mark.parametrize("output", ["low_res_masks", "iou_predictions"])
def test_one_prompts_masks_are_not_repeated_for_three(own_bundle: Path, output: str) -> None:
    _keep_the_first(own_bundle / "decoder.onnx", output)
    points, labels = np.full((3, 1, 2), 10.0), np.ones((3, 1))
    with samrt.load(own_bundle) as model:
        embedding = model.encode(_IMAGE)
        assert model.predict(embedding, points[0], labels[0]).masks.shape == (3, 48, 64)
        with pytest.raises(samrt.BackendError, match=rf"decoder returned {output} of the shape \[1, 4.* for 3 at once"):
            model.predict(embedding, points, labels)
        prompts = model.prompts_for(embedding, points, labels)
        with pytest.raises(samrt.BackendError, match="for 3 at once"):
            model.decoder.low_res_on_device(embedding, prompts)


@pytest.mark.parametrize(
    ("original_size", "input_size", "agree"),
    [
        ((48, 6400), (48, 64), False),
        ((64, 48), (48, 64), False),
        ((48, 64), (50, 64), False),
        ((48, 64), (47, 64), True),  # rounded by others
        ((48, 64), (64, 64), True),  # stretched by others
    ],
)
def test_an_embedding_whose_sizes_disagree_is_refused(
    own_bundle: Path, original_size: tuple[int, int], input_size: tuple[int, int], agree: bool
) -> None:
    with samrt.load(own_bundle) as model:
        whole = (0, 0, original_size[1], original_size[0])
        made_up = replace(model.encode(_IMAGE), original_size=original_size, input_size=input_size, region=whole)
        if agree:
            assert model.predict(made_up, [[10, 10]], [1]).masks.shape == (3, *original_size)
            return
        with pytest.raises(samrt.InputError, match="the embedding has the input_size"):
            model.predict(made_up, [[10, 10]], [1])
