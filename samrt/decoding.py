"""The decoder's work: prompts on an embedding to low-res masks, to the masks that answer, to the size of the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from samrt.backends.session import Session
from samrt.bundle.contract import MaskOutputs
from samrt.bundle.manifest import Manifest
from samrt.device.array import DeviceArray
from samrt.embedding import Embedding
from samrt.encoding import check_shapes, described, not_finite, shows
from samrt.errors import InputError
from samrt.geometry import threshold_masks, upscale_masks
from samrt.masks import ambiguous_masks, both, single_mask
from samrt.prompts import Prompts, decoder_inputs
from samrt.rle import encode

LOGITS, SCORES = "low_res_masks", "iou_predictions"
_LABELS = "point_labels"

Array = NDArray[np.float32]
# Of all masks of some prompts, those to keep.
Choose = Callable[[MaskOutputs, Array, Array], tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Masks of one prompt, or of B prompts with a first axis B in each array.

    C is 1, or with `multimask_output` as many as the model has for an ambiguous prompt (three for SAM). (H, W) is the
    size of the original image, L the side of low-res masks.

    Attributes:
        masks: bool [C, H, W] or [B, C, H, W]; float32 logits with `return_logits`. Outside a region that was encoded
            alone they are False, and logits are minus infinity.
        iou_predictions: float32 [C] or [B, C], the model's own estimate of each mask's quality, about 0..1.
        low_res_masks: float32 [C, L, L] or [B, C, L, L] logits over what was encoded; `low_res_masks[i : i + 1]` is a
            `mask_input`.
    """

    masks: NDArray[Any]
    iou_predictions: NDArray[np.float32]
    low_res_masks: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RlePrediction:
    """`Prediction` with masks as COCO run lengths, for many prompts or large images.

    Attributes:
        masks: a list of C, or of B lists of C, `{"size": [H, W], "counts": str}`; `pycocotools.mask.decode` and
            `samrt.rle.decode` expand them to [H, W].
        iou_predictions: as in `Prediction`.
        low_res_masks: as in `Prediction`.
    """

    masks: list[Any]
    iou_predictions: NDArray[np.float32]
    low_res_masks: NDArray[np.float32]


class LowResPrediction(NamedTuple):
    """What the decoder returns for B prompts: logits float32 [B, M, L, L], predicted IoU float32 [B, M]."""

    low_res_masks: NDArray[np.float32]
    iou_predictions: NDArray[np.float32]


class DeviceLowResPrediction(NamedTuple):
    """`LowResPrediction` on the GPU."""

    low_res_masks: DeviceArray
    iou_predictions: DeviceArray


class Decoder:
    """The mask decoder of a loaded bundle. All prompts are in the prompts' frame, wherever they lie.

    Raises:
        InputError: the embedding is of another model; for a device also, the prompts are too many for one call.
        BackendError: the decoder failed, or its result is not finite or of another shape.
    """

    def __init__(self, session: Session, manifest: Manifest) -> None:
        self._session = session
        self._manifest = manifest

    @property
    def prompts_per_call(self) -> int:
        """How many prompts go through the engine at once."""
        return self._session.decoder.max_lengths["prompts"]

    def predict(
        self, embedding: Embedding, prompts: Prompts, multimask_output: bool = True, return_logits: bool = False
    ) -> Prediction:
        """The masks that answer, at the size of the image."""
        low_res, scores = self.answers(embedding, prompts, ambiguous_masks if multimask_output else single_mask)
        masks = self.full_size(embedding, low_res, logits=return_logits)
        if not prompts.batched:
            return Prediction(masks[0], scores[0], low_res[0])
        return Prediction(masks, scores, low_res)

    def predict_rle(self, embedding: Embedding, prompts: Prompts, multimask_output: bool = True) -> RlePrediction:
        """`predict` with masks as COCO run lengths: only one at a time is in memory at the size of the image."""
        low_res, scores = self.answers(embedding, prompts, ambiguous_masks if multimask_output else single_mask)
        masks = [[encode(self.full_size(embedding, mask)) for mask in of_prompt] for of_prompt in low_res]
        if not prompts.batched:
            return RlePrediction(masks[0], scores[0], low_res[0])
        return RlePrediction(masks, scores, low_res)

    def low_res(self, embedding: Embedding, prompts: Prompts) -> LowResPrediction:
        """All masks of the decoder as they come."""
        return self.answers(embedding, prompts, _everything)

    def low_res_on_device(
        self, embedding: Embedding, prompts: Prompts, check_finite: bool = True
    ) -> LowResPrediction | DeviceLowResPrediction:
        """`low_res`, left on the GPU; where the backend has no device, as arrays.

        Whether all is finite is checked on the host, which waits for the GPU; `check_finite=False` leaves it out.
        """
        self.check_embedding(embedding)
        if prompts.count > self.prompts_per_call:
            raise InputError(
                f"on the device {self.prompts_per_call} prompts go at once, not {prompts.count}; split them"
            )
        inputs = {**embedding.features, **decoder_inputs(prompts, self._manifest.geometry.low_res_side)}
        outputs = self._session.decoder.run(inputs, on_device=(LOGITS, SCORES))
        self._check_shapes(outputs, prompts.count)
        if check_finite:
            self._check_finite(np.asarray(outputs[LOGITS]), np.asarray(outputs[SCORES]))
        on_host = isinstance(outputs[LOGITS], np.ndarray)
        return (LowResPrediction if on_host else DeviceLowResPrediction)(outputs[LOGITS], outputs[SCORES])

    def answers(self, embedding: Embedding, prompts: Prompts, choose: Choose = both) -> LowResPrediction:
        """Low-res logits [B, C, L, L] and scores [B, C] of the masks that `choose` keeps, in bounded memory for any B.

        With `both`, mask 0 is the single mask, and those of an ambiguous prompt follow.
        """
        self.check_embedding(embedding)
        inputs = decoder_inputs(prompts, self._manifest.geometry.low_res_side)
        low_res = scores = np.empty(0, np.float32)
        for start in range(0, prompts.count, self.prompts_per_call):
            piece = slice(start, start + self.prompts_per_call)
            some = {name: array[piece] for name, array in inputs.items()}
            outputs = self._session.decoder.run({**embedding.features, **some})
            self._check_shapes(outputs, len(some[_LABELS]))
            logits, ious = choose(self._manifest.masks, outputs[LOGITS], outputs[SCORES])
            if start == 0:
                low_res = np.empty((prompts.count, *logits.shape[1:]), np.float32)
                scores = np.empty((prompts.count, *ious.shape[1:]), np.float32)
            low_res[piece], scores[piece] = logits, ious
        self._check_finite(low_res, scores)
        return LowResPrediction(low_res, scores)

    def full_size(self, embedding: Embedding, low_res: Array, *, logits: bool = False) -> NDArray[Any]:
        """Low-res logits [..., L, L] to masks, bool (or float32 logits) [..., H, W] of the original image."""
        geometry, threshold = self._manifest.geometry, self._manifest.masks.threshold
        frames = geometry, embedding.input_size, embedding.region_size
        seen: NDArray[Any]
        seen = upscale_masks(low_res, *frames) if logits else threshold_masks(low_res, *frames, threshold)
        if embedding.is_whole:
            return seen
        x0, y0, x1, y1 = embedding.region
        masks = np.full((*low_res.shape[:-2], *embedding.original_size), -np.inf if logits else False, seen.dtype)
        masks[..., y0:y1, x0:x1] = seen
        return masks

    def check_embedding(self, embedding: Embedding) -> None:
        """Raises InputError unless the embedding is one that this model could have made."""
        if not isinstance(embedding, Embedding):
            raise InputError(f"embedding must come from Model.encode, not {type(embedding).__name__}; encode the image")
        geometry = self._manifest.geometry
        expected = {feature.name: (1, *feature.shape) for feature in self._manifest.features}
        found = {name: tuple(getattr(feature, "shape", ())) for name, feature in embedding.features.items()}
        if embedding.model_id != self._manifest.model_id:
            problem = f"was made by model {embedding.model_id}, this model is {self._manifest.model_id}"
        elif found != expected:
            problem = f"has the features {_listed(found)}, this model's are {_listed(expected)}"
        elif not geometry.fills(embedding.input_size, geometry.prompt_side):
            problem = f"has the input_size {embedding.input_size}, not {described(geometry, geometry.prompt_side)}"
        elif not shows(geometry, embedding.input_size, embedding.region_size):
            height, width = embedding.region_size
            problem = (
                f"has the input_size {embedding.input_size}, and {width}x{height} pixels (width x height) have "
                f"{geometry.input_size(height, width)}"
            )
        else:
            return
        raise InputError(f"the embedding {problem}; encode the image with this model")

    def _check_shapes(self, outputs: Mapping[str, Any], prompts: int) -> None:
        # A dynamic axis may come out with any length, and NumPy would repeat one prompt's masks for all.
        check_shapes("decoder", outputs, self._manifest.contract.mask_decoder("").outputs, prompts)

    def _check_finite(self, low_res: Array, scores: Array) -> None:
        if not (np.isfinite(scores).all() and np.isfinite(low_res).all()):
            raise not_finite("decoder", self._session.choice.form.precision)


def _everything(_: MaskOutputs, low_res: Array, scores: Array) -> tuple[Array, Array]:
    return low_res, scores


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
