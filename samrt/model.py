"""A bundle ready to run: images to embeddings, embeddings and prompts to masks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samrt.backends.session import open_session
from samrt.bundle.default import default_bundle
from samrt.bundle.folder import Bundle, open_bundle
from samrt.bundle.manifest import Manifest
from samrt.device.cuda import DeviceOptions
from samrt.embedding import Embedding
from samrt.engines.selection import Choice, check_backend
from samrt.errors import BackendError, InputError
from samrt.geometry import Size, normalize_and_pad, resize_longest_side, threshold_masks, upscale_masks
from samrt.images import ImageSource, read_image
from samrt.prompts import Prompts, add_points, check_geometry, decoder_inputs, read_prompts, to_input_frame
from samrt.scribble import Scribble, correct_logits, scribble_points


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


def load(
    bundle: str | os.PathLike[str] | Bundle | None = None,
    backend: str = "auto",
    device_options: DeviceOptions | None = None,
) -> Model:
    """Open a bundle, a folder or a zip, check its hashes and load its graphs or engines.

    Args:
        bundle: what `samrt export` wrote, or what `open_bundle` made of it. Closing the model closes what was
            opened here; an open `Bundle` stays open, and must until then. None: the model that comes with samrt.
        backend: "onnxruntime", "tensorrt" or "tensorrt_rtx"; or "auto", the best of the bundle's engines that fits
            this machine's GPU, else ONNX Runtime. `Model.choice` says what was chosen, and why not others.
        device_options: which GPU, whose stream, CUDA graphs or not; without meaning for ONNX Runtime.

    Raises:
        BundleError: the bundle is missing, damaged, tampered with, or contradicts itself.
        BackendError: the backend is unknown, not installed, has no engines that fit, or cannot load the graphs.
    """
    check_backend(backend)
    if isinstance(bundle, Bundle):
        return Model(bundle, backend, device_options)
    opened = open_bundle(default_bundle() if bundle is None else bundle)
    try:
        return Model(opened, backend, device_options, close_bundle=True)
    except BaseException:
        opened.close()
        raise


class Model:
    """A loaded bundle. Its methods may be called from several threads; close it, or use it in a `with` block."""

    def __init__(
        self,
        bundle: Bundle,
        backend: str = "auto",
        device_options: DeviceOptions | None = None,
        *,
        close_bundle: bool = False,
    ) -> None:
        self._bundle = bundle
        self._close_bundle = close_bundle
        self._session = open_session(bundle, backend, device_options)

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
        return self.choice.backend

    @property
    def choice(self) -> Choice:
        """Backend, precision, lowering and engines that were chosen, and which engines were passed over, and why."""
        return self._session.choice

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
            InputError: the longer side is another.
            BackendError: as `encode`.
        """
        pixels = normalize_and_pad(image, self.image_size, self.manifest.normalization)
        return self.encode_prepared(pixels, original_size, (image.shape[0], image.shape[1]))

    def encode_prepared(self, image: Any, original_size: Size, input_size: Size) -> Embedding:
        """Encode an image that is normalised and padded already: float32 [1, 3, S, S] RGB.

        Args:
            image: a NumPy array; or, with a TensorRT backend, anything on the GPU that has `__cuda_array_interface__`
                or DLPack (a tensor of torch or CuPy, PyCUDA's GPUArray), contiguous: it never passes through the host.
            original_size: (H, W) of the image before resizing, the size that masks will have.
            input_size: (h, w) of the image as resized, without the padding.

        Raises:
            InputError: the array is of another shape, or `input_size` of another longer side than S; with a TensorRT
                backend also, the array is of another dtype or on another GPU.
            BackendError: the encoder failed, or its result is not finite.
        """
        self._check_prepared(image, input_size)
        features = self._session.encoder.run({"image": image}, on_device=("image_embeddings",))["image_embeddings"]
        self._check_features(features)
        return Embedding(features, original_size, input_size, self.manifest.model_id)

    def encode_batch(self, images: Sequence[ImageSource], image_format: str = "RGB") -> list[Embedding]:
        """Encode several images, as many at once as the encoder takes (`samrt build --max-batch`).

        Embeddings of one call of the encoder share their memory: it is freed with the last of them.

        Raises:
            InputError: an image cannot be used.
            BackendError: the encoder failed, or its result is not finite.
        """
        at_once = self._session.encoder.limits.get("batch", 1)
        embeddings: list[Embedding] = []
        for start in range(0, len(images), at_once):
            pixels = [read_image(image, image_format) for image in images[start : start + at_once]]
            resized = [resize_longest_side(each, self.image_size) for each in pixels]
            batch = np.concatenate(
                [normalize_and_pad(each, self.image_size, self.manifest.normalization) for each in resized]
            )
            features = self._session.encoder.run({"image": batch}, on_device=("image_embeddings",))["image_embeddings"]
            self._check_features(features)
            embeddings += [
                Embedding(features[i : i + 1], each.shape[:2], small.shape[:2], self.manifest.model_id)
                for i, (each, small) in enumerate(zip(pixels, resized, strict=True))
            ]
        return embeddings

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
        low_res, scores = self._run_decoder(embedding, prompts, _kept(multimask_output))
        frames = self.image_size, embedding.input_size, embedding.original_size
        masks: NDArray[Any]
        if return_logits:
            masks = upscale_masks(low_res, *frames)
        else:
            masks = threshold_masks(low_res, *frames, self.manifest.mask_threshold)
        if not prompts.batched:
            return Prediction(masks[0], scores[0], low_res[0])
        return Prediction(masks, scores, low_res)

    def predict_low_res(
        self,
        embedding: Embedding,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        *,
        on_device: bool = False,
    ) -> tuple[Any, Any]:
        """What the decoder itself returns for the prompts of `predict`, for code that goes on from there.

        Args:
            embedding: as `predict`; so are the prompts, `point_coords` to `mask_input`.
            on_device: with a TensorRT backend, leave both results on the GPU, as `DeviceArray`; B is then limited to
                what one call takes (`samrt build --max-prompts`), and nothing is checked for NaN.

        Returns:
            float32 [B, 4, L, L] logits over the padded input, and float32 [B, 4] predicted IoU; B is 1 for one prompt.
            Mask 0 is the single mask, 1 to 3 are the three of an ambiguous prompt.

        Raises:
            InputError: as `predict`; or the prompts are too many for one call.
            BackendError: the decoder failed, or its result is not finite.
        """
        self._check_embedding(embedding)
        size = embedding.original_size
        prompts = self.check_prompts(size, point_coords, point_labels, box, mask_input)
        prompts = to_input_frame(prompts, size, embedding.input_size)
        if not on_device:
            return self._run_decoder(embedding, prompts, slice(0, 4))
        if prompts.count > self._prompts_per_call:
            raise InputError(
                f"with on_device, {self._prompts_per_call} prompts go at once, not {prompts.count}; split them"
            )
        inputs = {"image_embeddings": embedding.features, **decoder_inputs(prompts, self.manifest.low_res_size)}
        outputs = self._session.decoder.run(inputs, on_device=("low_res_masks", "iou_predictions"))
        return outputs["low_res_masks"], outputs["iou_predictions"]

    def close(self) -> None:
        """Give memory and temporary files back. May be called again; the model cannot be used afterwards."""
        try:
            self._session.close()
        finally:
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
        if embedding.model_id != self.manifest.model_id:
            problem = f"was made by model {embedding.model_id}, this model is {self.manifest.model_id}"
        elif embedding.features.shape[1:] != self.manifest.embedding_shape:
            expected = [1, *self.manifest.embedding_shape]
            problem = f"has features {list(embedding.features.shape)}, this model's are {expected}"
        elif max(embedding.input_size) != self.image_size:
            problem = f"has the input_size {embedding.input_size}, whose longer side should be {self.image_size}"
        else:
            return
        raise InputError(f"the embedding {problem}; encode the image with this model")

    def _check_prepared(self, image: Any, input_size: Size) -> None:
        S = self.image_size
        shape = getattr(image, "shape", None)  # what has none is the engine's to check
        if shape is not None and tuple(shape) != (1, 3, S, S):
            raise InputError(
                f"a prepared image must have the shape [1, 3, {S}, {S}], not {list(shape)}; pad it to that"
            )
        try:
            longest = max(input_size)
        except (TypeError, ValueError):
            longest = None
        if longest != S:
            raise InputError(
                f"input_size must be (height, width) of the image as resized, the longer side {S}, not {input_size}"
            )

    def _check_features(self, features: Any) -> None:
        # What stays on the device is not fetched for this: a NaN in it is one in the masks.
        if isinstance(features, np.ndarray) and not np.isfinite(features).all():
            raise self._not_finite("encoder")

    def _mask_prompt(
        self, embedding: Embedding, prompts: Prompts, scribble: Scribble, multimask_output: bool
    ) -> NDArray[np.float32]:
        """The best mask for the points of the scribble, corrected under its strokes, [1, 1, L, L]."""
        low_res, scores = self._run_decoder(embedding, prompts, _kept(multimask_output))
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
        self, embedding: Embedding, prompts: Prompts, kept: slice
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Low-res logits [B, C, L, L] and scores [B, C] of the masks `kept`, with bounded memory for any B."""
        side = self.manifest.low_res_size
        inputs = decoder_inputs(prompts, side)
        masks = kept.stop - kept.start
        low_res = np.empty((prompts.count, masks, side, side), np.float32)
        scores = np.empty((prompts.count, masks), np.float32)
        for start in range(0, prompts.count, self._prompts_per_call):
            piece = slice(start, start + self._prompts_per_call)
            outputs = self._session.decoder.run(
                {"image_embeddings": embedding.features, **{name: array[piece] for name, array in inputs.items()}}
            )
            low_res[piece] = outputs["low_res_masks"][:, kept]
            scores[piece] = outputs["iou_predictions"][:, kept]
        if not (np.isfinite(scores).all() and np.isfinite(low_res).all()):
            raise self._not_finite("decoder")
        return low_res, scores

    @property
    def _prompts_per_call(self) -> int:
        return self._session.decoder.limits["prompts"]

    def _not_finite(self, graph: str) -> BackendError:
        precision = self.choice.form.precision
        if precision == "fp32":
            remedy = "look for extreme values in what it was given, else export again from a sound checkpoint"
        else:
            remedy = "export with --precision fp32"
        return BackendError(f"the {graph} returned NaN or infinity; {remedy} (it ran in {precision})")


def _kept(multimask_output: bool) -> slice:
    """Of the decoder's four masks: the three of an ambiguous prompt, or the single-mask output before them."""
    return slice(1, 4) if multimask_output else slice(0, 1)
