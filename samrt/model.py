"""A bundle ready to run: images to embeddings, embeddings and prompts to masks."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samrt.backends import Engine, choose_backend, open_engine
from samrt.bundle import Bundle, open_bundle
from samrt.embedding import Embedding
from samrt.errors import BackendError, InputError
from samrt.images import ImageSource, read_image
from samrt.manifest import Manifest
from samrt.prompts import Prompts, add_points, check_geometry, decoder_inputs, read_prompts, to_input_frame
from samrt.scribble import Scribble, correct_logits, scribble_points
from samrt.transforms import Size, normalize_and_pad, resize_longest_side, threshold_masks, upscale_masks

# Prompts in one call of the decoder. Each costs up to 100 MB there and none gets cheaper in company.
PROMPTS_PER_CALL = 4


@dataclass(frozen=True, eq=False)
class Prediction:
    """Masks of one prompt, or of B prompts with a first axis B in each array.

    C is 3 with `multimask_output`, else 1. (H, W) is the size of the original image, L the side of low-res masks.

    Attributes:
        masks: bool [C, H, W] or [B, C, H, W]; float32 logits with `return_logits`.
        iou_predictions: float32 [C] or [B, C], the model's own estimate of each mask's quality, about 0..1.
        low_res_masks: float32 [C, L, L] or [B, C, L, L] logits; `low_res_masks[i : i + 1]` is a `mask_input`.
    """

    masks: NDArray[Any]
    iou_predictions: NDArray[np.float32]
    low_res_masks: NDArray[np.float32]


def load(bundle: str | os.PathLike[str] | Bundle, backend: str = "auto") -> Model:
    """Open a bundle, a folder or a zip, check its hashes and load its graphs.

    Args:
        bundle: what `samrt export` wrote, or what `open_bundle` made of it. Closing the model closes what was
            opened here; an open `Bundle` stays open, and must until then.
        backend: "auto", or "onnxruntime"; `Model.backend` says what was chosen.

    Raises:
        BundleError: the bundle is missing, damaged, tampered with, or contradicts itself.
        BackendError: the backend is unknown, not installed, or cannot load the graphs.
    """
    chosen = choose_backend(backend)
    if isinstance(bundle, Bundle):
        return Model(bundle, chosen)
    opened = open_bundle(bundle)
    try:
        return Model(opened, chosen, close_bundle=True)
    except BaseException:
        opened.close()
        raise


class Model:
    """A loaded bundle. Its methods may be called from several threads; close it, or use it in a `with` block."""

    def __init__(self, bundle: Bundle, backend: str = "auto", *, close_bundle: bool = False) -> None:
        self._bundle = bundle
        self._close_bundle = close_bundle
        self._backend = choose_backend(backend)
        self._encoder: Engine = open_engine(bundle, "encoder", self._backend)
        try:
            self._decoder: Engine = open_engine(bundle, "decoder", self._backend)
        except BaseException:
            self._encoder.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self._bundle.manifest

    @property
    def image_size(self) -> int:
        """Side S of the square model input in pixels."""
        return self.manifest.image_size

    @property
    def backend(self) -> str:
        """The backend that was chosen."""
        return self._backend

    def encode(self, image: ImageSource, image_format: str = "RGB") -> Embedding:
        """Encode an image, the slow step that all prompts on it share.

        Args:
            image: a path, a PIL image, or an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], uint8 in 0..255 or
                floating in 0..1.
            image_format: the order of an array's channels: "RGB", "BGR", "RGBA", "BGRA" or "GREY".

        Raises:
            InputError: the image cannot be used.
            BackendError: the encoder failed, or its result is not finite.
        """
        pixels = read_image(image, image_format)
        height, width = pixels.shape[:2]
        return self.encode_resized(resize_longest_side(pixels, self.image_size), (height, width))

    def encode_resized(self, image: NDArray[Any], original_size: Size) -> Embedding:
        """Encode an image that is resized already: uint8 or float32 [h, w, 3] RGB in 0..255, longer side `image_size`.

        `original_size` is (H, W) before resizing, the size that masks will have.

        Raises:
            BackendError: as `encode`.
        """
        pixels = normalize_and_pad(image, self.image_size, self.manifest.normalization)
        features = self._encoder.run({"image": pixels})["image_embeddings"]
        if not np.isfinite(features).all():
            raise self._not_finite("encoder")
        return Embedding(features, original_size, (image.shape[0], image.shape[1]), self.manifest.model_id)

    def predict(
        self,
        embedding: Embedding,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        *,
        scribble: Scribble | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> Prediction:
        """Predict the masks of one prompt, or of a batch of B: all of its arrays then have a first axis B.

        Args:
            embedding: what `encode` of this model, or of one from the same checkpoint, returned.
            point_coords: [N, 2] or [B, N, 2] (x, y) in pixels of the original image.
            point_labels: [N] or [B, N]; 1 foreground, 0 background, -1 padding in a batch of unequal counts.
            box: [4] or [B, 4], x0, y0, x1, y1 in pixels of the original image.
            mask_input: float [1, L, L] or [B, 1, L, L], low-res logits of an earlier prediction.
            scribble: strokes, for one prompt; the decoder runs twice, see `samrt.scribble`.
            multimask_output: three masks for an ambiguous prompt instead of one.
            return_logits: leave the masks unthresholded.

        Raises:
            InputError: the prompt is empty, malformed or outside the image, or the embedding is of another model.
            BackendError: the decoder failed, or its result is not finite.
        """
        self._check_embedding(embedding)
        size = embedding.original_size
        prompts = self.check_prompts(size, point_coords, point_labels, box, mask_input, scribble=scribble)
        prompts = to_input_frame(prompts, size, embedding.input_size)
        if scribble is not None:
            prompts = replace(prompts, mask_input=self._mask_prompt(embedding, prompts, scribble, multimask_output))
        return self.decode(embedding, prompts, multimask_output, return_logits)

    def check_prompts(
        self,
        original_size: Size,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        *,
        scribble: Scribble | None = None,
    ) -> Prompts:
        """Check the prompts of `predict` for an image of `original_size` (H, W), before the long work of encoding it.

        Raises:
            InputError: a prompt is empty, malformed or outside the image.
        """
        prompts = read_prompts(point_coords, point_labels, box, mask_input, self.manifest.low_res_size)
        if scribble is not None:
            if prompts.batched:
                raise InputError("a scribble is one prompt and cannot join a batch; predict them one by one")
            prompts = add_points(prompts, *scribble_points(scribble, original_size))
        check_geometry(prompts, original_size)
        return prompts

    def decode(
        self, embedding: Embedding, prompts: Prompts, multimask_output: bool = True, return_logits: bool = False
    ) -> Prediction:
        """`predict` for prompts in pixels of the resized image, wherever they lie.

        Raises:
            InputError: the embedding is of another model.
            BackendError: the decoder failed, or its result is not finite.
        """
        self._check_embedding(embedding)
        low_res, scores = self._run_decoder(embedding, prompts, multimask_output)
        frames = self.image_size, embedding.input_size, embedding.original_size
        masks: NDArray[Any]
        if return_logits:
            masks = upscale_masks(low_res, *frames)
        else:
            masks = threshold_masks(low_res, *frames, self.manifest.mask_threshold)
        if not prompts.batched:
            return Prediction(masks[0], scores[0], low_res[0])
        return Prediction(masks, scores, low_res)

    def close(self) -> None:
        """Give memory and temporary files back. May be called again; the model cannot be used afterwards."""
        self._encoder.close()
        self._decoder.close()
        if self._close_bundle:
            self._bundle.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_embedding(self, embedding: Embedding) -> None:
        if not isinstance(embedding, Embedding):
            raise InputError(f"embedding must come from Model.encode, not {type(embedding).__name__}; encode the image")
        fits = embedding.features.shape[1:] == self.manifest.embedding_shape
        if embedding.model_id != self.manifest.model_id or not fits or max(embedding.input_size) != self.image_size:
            raise InputError(
                f"the embedding was made by model {embedding.model_id}, this model is {self.manifest.model_id}; "
                "encode the image with this model"
            )

    def _mask_prompt(
        self, embedding: Embedding, prompts: Prompts, scribble: Scribble, multimask_output: bool
    ) -> NDArray[np.float32]:
        """The best mask for the points of the scribble, corrected under its strokes, [1, 1, L, L]."""
        low_res, scores = self._run_decoder(embedding, prompts, multimask_output)
        corrected = correct_logits(
            low_res[0, int(np.argmax(scores[0]))],
            scribble,
            embedding.original_size,
            embedding.input_size,
            self.image_size,
            threshold=self.manifest.mask_threshold,
        )
        return corrected[None, None]

    def _run_decoder(
        self, embedding: Embedding, prompts: Prompts, multimask_output: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Low-res logits [B, C, L, L] and scores [B, C], with bounded memory for any B."""
        side = self.manifest.low_res_size
        inputs = decoder_inputs(prompts, side)
        # The decoder makes four masks: the single-mask output, then the three of an ambiguous prompt.
        kept = slice(1, 4) if multimask_output else slice(0, 1)
        masks = kept.stop - kept.start
        low_res = np.empty((prompts.count, masks, side, side), np.float32)
        scores = np.empty((prompts.count, masks), np.float32)
        for start in range(0, prompts.count, PROMPTS_PER_CALL):
            piece = slice(start, start + PROMPTS_PER_CALL)
            outputs = self._decoder.run(
                {"image_embeddings": embedding.features, **{name: array[piece] for name, array in inputs.items()}}
            )
            low_res[piece] = outputs["low_res_masks"][:, kept]
            scores[piece] = outputs["iou_predictions"][:, kept]
        if not (np.isfinite(scores).all() and np.isfinite(low_res).all()):
            raise self._not_finite("decoder")
        return low_res, scores

    def _not_finite(self, graph: str) -> BackendError:
        if self.manifest.precision == "fp32":
            remedy = "look for extreme values in what it was given, else export again from a sound checkpoint"
        else:
            remedy = "export with --precision fp32"
        return BackendError(
            f"the {graph} returned NaN or infinity; {remedy} (this bundle is {self.manifest.precision})"
        )
