"""Which of the decoder's masks answer a prompt: the rule that a bundle's manifest names (`MaskOutputs.choice`).

Every rule takes what the decoder returns for P prompts, logits float32 [P, M, L, L] and predicted IoU float32 [P, M],
and gives logits [P, C, L, L] and scores [P, C].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samrt.bundle.contract import MaskOutputs

Array = NDArray[np.float32]

# SAM 2's: how far the logits' threshold is moved up and down, and how much of the area must stay.
_STABILITY_DELTA, _STABLE = 0.05, 0.98


def single_mask(outputs: MaskOutputs, low_res: Array, scores: Array) -> tuple[Array, Array]:
    """The one mask of a prompt that is not ambiguous; C is 1."""
    if outputs.choice == "predicted_iou":
        return _most_confident(outputs, low_res, scores)
    mask, score = _outputs(low_res, scores, (outputs.single,))
    if outputs.choice == "stability":
        # SAM 2: `MaskDecoder._dynamic_multimask_via_stability`.
        stable = stability(mask[:, 0], outputs.threshold, _STABILITY_DELTA) >= _STABLE
        other, other_score = _most_confident(outputs, low_res, scores)
        return np.where(stable[:, None, None, None], mask, other), np.where(stable[:, None], score, other_score)
    return _with_last(outputs, low_res, mask), score


def ambiguous_masks(outputs: MaskOutputs, low_res: Array, scores: Array) -> tuple[Array, Array]:
    """The masks of an ambiguous prompt; C is 1 with "hq", else as many as there are."""
    if outputs.choice == "hq":
        # SAM-HQ: `MaskDecoderHQ.forward` with multimask_output keeps the most confident of them.
        mask, score = _most_confident(outputs, low_res, scores)
        return _with_last(outputs, low_res, mask), score
    return _outputs(low_res, scores, outputs.ambiguous)


def both(outputs: MaskOutputs, low_res: Array, scores: Array) -> tuple[Array, Array]:
    """`single_mask`, then `ambiguous_masks`."""
    masks, ious = zip(single_mask(outputs, low_res, scores), ambiguous_masks(outputs, low_res, scores), strict=True)
    return np.concatenate(masks, axis=1), np.concatenate(ious, axis=1)


def stability(logits: Array, threshold: float, offset: float) -> NDArray[np.float64]:
    """Stability score of masks: the area above `threshold + offset` over that above `threshold - offset`.

    Meta's `calculate_stability_score`, but 1 where both areas are empty, as SAM 2's decoder has it. float32
    [..., h, w] to float64 [...].
    """
    high, low = ((logits > threshold + sign * offset).sum(axis=(-2, -1)) for sign in (1, -1))
    return np.where(low == 0, 1.0, high / np.maximum(low, 1))


def _outputs(low_res: Array, scores: Array, indices: tuple[int, ...]) -> tuple[Array, Array]:
    first, last = indices[0], indices[-1] + 1
    # Neighbours as a view: nothing is copied.
    wanted = slice(first, last) if indices == tuple(range(first, last)) else list(indices)
    return low_res[:, wanted], scores[:, wanted]


def _most_confident(outputs: MaskOutputs, low_res: Array, scores: Array) -> tuple[Array, Array]:
    low_res, scores = _outputs(low_res, scores, outputs.ambiguous)
    best = np.argmax(scores, axis=1)[:, None]
    return np.take_along_axis(low_res, best[..., None, None], axis=1), np.take_along_axis(scores, best, axis=1)


def _with_last(outputs: MaskOutputs, low_res: Array, mask: Array) -> Array:
    """With "hq", the mask with the logits of the decoder's last one added, which SAM-HQ's extra token predicts."""
    return mask + low_res[:, -1:] if outputs.choice == "hq" else mask
