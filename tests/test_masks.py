"""Which masks answer: each rule against what its reference's source says, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from samrt.bundle.contract import MaskOutputs
from samrt.masks import ambiguous_masks, both, single_mask, stability

RANDOM = np.random.default_rng(0)
LOW_RES = RANDOM.standard_normal((3, 5, 8, 8)).astype(np.float32)
SCORES = np.array([[0.9, 0.1, 0.5, 0.3, 0.0], [0.1, 0.8, 0.2, 0.3, 0.0], [0.2, 0.1, 0.3, 0.9, 0.0]], np.float32)
BEST = [2, 1, 3]  # of masks 1 to 3


def outputs(choice: str, **changes: Any) -> MaskOutputs:
    return MaskOutputs(5, 0, (1, 2, 3), choice, **changes)


def picked(masks: list[int], add: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The mask of this index of each prompt, with another mask added."""
    prompts = np.arange(3)
    logits = LOW_RES[prompts, masks] + (0 if add is None else LOW_RES[:, add])
    return logits[:, None], SCORES[prompts, masks][:, None]


def assert_same(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_token() -> None:
    assert_same(single_mask(outputs("token"), LOW_RES, SCORES), picked([0, 0, 0]))
    assert_same(ambiguous_masks(outputs("token"), LOW_RES, SCORES), (LOW_RES[:, 1:4], SCORES[:, 1:4]))


def test_masks_that_are_no_neighbours() -> None:
    apart = MaskOutputs(5, 1, (4, 0))
    assert_same(ambiguous_masks(apart, LOW_RES, SCORES), (LOW_RES[:, [4, 0]], SCORES[:, [4, 0]]))


def test_predicted_iou() -> None:
    assert_same(single_mask(outputs("predicted_iou"), LOW_RES, SCORES), picked(BEST))


def test_hq_adds_the_last_mask() -> None:
    assert_same(single_mask(outputs("hq"), LOW_RES, SCORES), picked([0, 0, 0], add=4))
    assert_same(ambiguous_masks(outputs("hq"), LOW_RES, SCORES), picked(BEST, add=4))


@pytest.mark.parametrize("threshold", [0.0, 2.0])
def test_stability_keeps_a_stable_single_mask(threshold: float) -> None:
    logits = LOW_RES.copy()
    logits[0, 0] = np.where(RANDOM.random((8, 8)) < 0.5, 5, -5) + threshold  # stable
    logits[1, 0] = threshold - 5  # empty, which counts as stable
    logits[2, 0] = threshold + 0.04 * np.where(RANDOM.random((8, 8)) < 0.5, 1, -1)  # all within the offset
    found, scores = single_mask(outputs("stability", threshold=threshold), logits, SCORES)
    for prompt, chosen in enumerate((0, 0, BEST[2])):
        np.testing.assert_array_equal(found[prompt, 0], logits[prompt, chosen])
        assert scores[prompt, 0] == SCORES[prompt, chosen]


def test_stability_is_the_share_that_stays() -> None:
    logits = np.array([[3, 1, 0.5, -0.5, -2]], np.float32)
    assert stability(logits, threshold=0, offset=1) == 1 / 4  # above 1: one; above -1: four
    assert stability(logits, threshold=9, offset=1) == 1


def test_both_is_the_single_mask_and_then_the_others() -> None:
    for choice in ("token", "hq", "predicted_iou", "stability"):
        logits, scores = both(outputs(choice), LOW_RES, SCORES)
        single, others = (choose(outputs(choice), LOW_RES, SCORES) for choose in (single_mask, ambiguous_masks))
        np.testing.assert_array_equal(logits, np.concatenate([single[0], others[0]], axis=1))
        np.testing.assert_array_equal(scores, np.concatenate([single[1], others[1]], axis=1))
