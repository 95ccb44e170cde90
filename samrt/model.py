"""A bundle ready to run: images to embeddings, embeddings and prompts to masks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike, NDArray

from samrt.backends.session import open_session
from samrt.bundle.contract import Geometry, Size
from samrt.bundle.default import default_bundle
from samrt.bundle.file_state import BundleReplacedError, Patience
from samrt.bundle.folder import Bundle, open_bundle
from samrt.bundle.manifest import Manifest
from samrt.decoding import Decoder, DeviceLowResPrediction, LowResPrediction, Prediction
from samrt.device.session import DeviceOptions
from samrt.embedding import WHOLE, Embedding, Region, check_region
from samrt.encoding import Encoder, read_region
from samrt.engines.selection import Choice, check_backend
from samrt.geometry import normalize_and_pad, resize_image
from samrt.images import ImageSource
from samrt.masks import ambiguous_masks, single_mask
from samrt.pickling import Origin, PickledByPath
from samrt.prompts import Prompts, fit_geometry, read_prompts, to_input_frame
from samrt.sam_module import SamModule
from samrt.scribble import Scribble, add_scribble, mask_prompt


def load(
    bundle: str | os.PathLike[str] | Bundle | None = None,
    backend: str = "auto",
    device_options: DeviceOptions | None = None,
    *,
    precision: str | None = None,
    threads: int | None = None,
) -> Model:
    """Open a bundle's folder, check its hashes and load its graphs or engines.

    Args:
        bundle: a bundle's path, or what `open_bundle` made of it. None: the model that comes with samrt.
        backend: "onnxruntime", "tensorrt" or "tensorrt_rtx"; or "auto", the best of the bundle's engines that fits
            this machine's GPU, else ONNX Runtime. `Model.choice` says what was chosen, and why not others.
        device_options: which GPU, whose stream, CUDA graphs or not; ignored by ONNX Runtime.
        precision: "fp32" or "fp16", of the bundle's forms; None: the best for the backend, which is fp32 on a CPU.
        threads: that ONNX Runtime computes with; None: one per core that this process may use,
            as `samrt doctor` shows it. Ignored by the GPU backends.

    Raises:
        BundleError: the bundle is missing, damaged, tampered with, or contradicts itself.
        InputError: `threads` is not a positive whole number.
        BackendError: the backend or the precision is unknown, not installed or not in the bundle, has no engines that
            fit, or cannot load the graphs.
    """
    check_backend(backend)
    if isinstance(bundle, Bundle):
        return Model(bundle, backend, device_options, precision=precision, threads=threads)
    path = default_bundle() if bundle is None else bundle
    patience = Patience()
    while True:
        try:
            return Model(open_bundle(path), backend, device_options, precision=precision, threads=threads)
        except BundleReplacedError:
            if patience.is_over():
                raise


class Model(SamModule, PickledByPath):
    """A loaded bundle. Its methods may be called from several threads; close it, or use it in a `with` block."""

    def __init__(
        self,
        bundle: Bundle,
        backend: str = "auto",
        device_options: DeviceOptions | None = None,
        *,
        precision: str | None = None,
        threads: int | None = None,
    ) -> None:
        self._bundle = bundle
        self._origin = Origin(bundle.folder, bundle.manifest, backend, device_options, precision, threads)
        self._gpu = (device_options or DeviceOptions()).device
        self._session = open_session(bundle, backend, device_options, precision=precision, threads=threads)
        self._encoder = Encoder(self._session, bundle.manifest)
        self._decoder = Decoder(self._session, bundle.manifest)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self._bundle.manifest

    @property
    def geometry(self) -> Geometry:
        """The model's frames, and how images get into them."""
        return self.manifest.geometry

    @property
    def decoder(self) -> Decoder:
        """The decoder alone, for prompts that are checked and in the prompts' frame already."""
        return self._decoder

    @property
    def image_size(self) -> int:
        """Side of the square that the image encoder takes, in pixels."""
        return self.geometry.encoder_side

    @property
    def backend(self) -> str:
        """The backend that was chosen."""
        return self.choice.backend

    @property
    def choice(self) -> Choice:
        """Backend, precision, lowering and engines that were chosen, and which engines were skipped, and why."""
        return self._session.choice

    def encode(self, image: ImageSource, image_format: str = "RGB", *, region: Region | None = None) -> Embedding:
        """Encode an image, the slow step that all prompts on it share.

        Args:
            image: a path, the bytes of an image file, a file opened in binary mode, a PIL image, or an array [H, W],
                [H, W, 1], [H, W, 3] or [H, W, 4], uint8 in 0..255 or floating in 0..1. docs/images.md says what becomes
                of each kind.
            image_format: the order of an array's channels: "RGB", "BGR", "RGBA", "BGRA" or "GREY".
            region: x0, y0, x1, y1, whole numbers in pixels of the image: only that part is seen, at the model's full
                resolution. Prompts and masks stay in pixels of the whole image; prompts must lie in the region. What
                an array holds outside it is not looked at.

        Raises:
            InputError: the image or the region cannot be used.
            BackendError: the encoder failed, or its result is not finite.
        """
        pixels, size, region = read_region(image, image_format, region)
        input_size = self.geometry.input_size(*pixels.shape[:2])
        prepared = normalize_and_pad(resize_image(pixels, self.geometry), self.geometry)
        return self.encode_prepared(prepared, size, input_size, region=region)

    def encode_resized(self, image: NDArray[Any], original_size: Size) -> Embedding:
        """Encode an image that is resized already, as `Geometry.encoder_size` says: the longer side is `image_size`.

        Args:
            image: uint8 or float32 [h, w, 3] RGB in 0..255.
            original_size: (H, W) before resizing, the size that masks will have.

        Raises:
            InputError: the image has another size than the encoder's.
            BackendError: as `encode`.
        """
        geometry, size = self.geometry, (image.shape[0], image.shape[1])
        self._encoder.check_resized(*size)
        # Where both frames are one, what was resized counts, however it was rounded.
        same = geometry.encoder_side == geometry.prompt_side
        input_size = size if same else geometry.input_size(*original_size)
        return self.encode_prepared(normalize_and_pad(image, geometry), original_size, input_size)

    def encode_prepared(
        self, image: Any, original_size: Size, input_size: Size, *, region: Region | None = None
    ) -> Embedding:
        """Encode an image that is normalised and padded already: float32 [1, 3, S, S] RGB, S the encoder's side.

        Args:
            image: a NumPy array; or, with a TensorRT backend, anything on the GPU that has `__cuda_array_interface__`
                or DLPack (a tensor of torch or CuPy, PyCUDA's GPUArray), contiguous: it never passes through the host.
            original_size: (H, W) of the image before resizing, the size that masks will have.
            input_size: (h, w) of the image, or its region, in the prompts' frame, without the padding:
                `Geometry.input_size`.
            region: what of the original the image shows, x0, y0, x1, y1; None: all of it.

        Raises:
            InputError: the array is of another shape, or `input_size` is none that the model's resizing gives; with a
                TensorRT backend also, the array is of another dtype or on another GPU.
            BackendError: the encoder failed, or its result is not finite.
        """
        self._encoder.check_prepared(image, input_size)
        shown = WHOLE if region is None else check_region(region, original_size)
        return Embedding(self._encoder.run(image), original_size, input_size, self.manifest.model_id, shown)

    def encode_batch(self, images: Sequence[ImageSource], image_format: str = "RGB") -> list[Embedding]:
        """Encode several images, as many at once as the encoder takes (`BuildLimits.max_batch`).

        Embeddings of one call of the encoder share their memory: it is freed with the last of them.

        Raises:
            InputError: an image cannot be used.
            BackendError: the encoder failed, or its result is not finite.
        """
        input_size, model_id = self.geometry.input_size, self.manifest.model_id
        encoded = self._encoder.run_batch(images, image_format)
        return [Embedding(features, size, input_size(*size), model_id) for features, size in encoded]

    def predict(  # noqa: PLR0913 - Meta's five prompts and switches without the image, and samrt's scribble and clip
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
        clip: bool = False,
    ) -> Prediction:
        """Predict the masks of one prompt, or of a batch of B: all of its arrays then have a first axis B.

        An empty list is no prompt of its kind. Points and boxes up to a pixel past the edge of the image, or of its
        region, are moved onto the edge. The masks take B * C * H * W bytes, 2.4 GB for 100 boxes on 24 megapixels;
        `decoder.predict_rle(embedding, prompts_for(embedding, ...))` returns them as run lengths.

        Args:
            embedding: what `encode` of this model, or of one from the same checkpoint, returned.
            point_coords: [N, 2] or [B, N, 2] (x, y) in pixels of the original image.
            point_labels: [N] or [B, N]; 1 foreground, 0 background, -1 padding in a batch of unequal counts.
            box: [4] or [B, 4], x0, y0, x1, y1 in pixels of the original image.
            mask_input: float [1, L, L] or [B, 1, L, L], low-res logits of an earlier prediction.
            scribble: strokes, for one prompt; the decoder runs twice, see `samrt.scribble`.
            multimask_output: the masks of an ambiguous prompt, three for SAM, instead of one.
            return_logits: leave the masks unthresholded.
            clip: cut boxes that reach further outside off at the edge, instead of refusing them.

        Raises:
            InputError: the prompt is empty, malformed or outside the image or the region that was encoded, or the
                embedding is of another model.
            BackendError: the decoder failed, or its result is not finite.
        """
        given = point_coords, point_labels, box, mask_input
        prompts = self.prompts_for(embedding, *given, scribble=scribble, clip=clip, multimask_output=multimask_output)
        return self.decoder.predict(embedding, prompts, multimask_output, return_logits)

    def check_prompts(
        self,
        original_size: Size,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        *,
        scribble: Scribble | None = None,
        region: Region | None = None,
        clip: bool = False,
    ) -> Prompts:
        """Check the prompts of `predict` for an image of `original_size` (H, W), before the long work of encoding it.

        Returns the prompts in pixels of the image, those a little past its edge moved onto it.

        Raises:
            InputError: a prompt is empty, malformed or outside the image or its `region`; or the region is none.
        """
        prompts = read_prompts(point_coords, point_labels, box, mask_input, self.geometry.low_res_side)
        whole = (0, 0, original_size[1], original_size[0])
        region = whole if region is None else check_region(region, original_size)
        if scribble is not None:
            prompts = add_scribble(prompts, scribble, original_size, region)
        return fit_geometry(prompts, original_size, region, clip=clip)

    def prompts_for(
        self,
        embedding: Embedding,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        *,
        scribble: Scribble | None = None,
        clip: bool = False,
        multimask_output: bool = True,
    ) -> Prompts:
        """The prompts of `predict`, checked and moved to the prompts' frame, as `decoder` takes them.

        A scribble becomes points and a mask prompt, for which the decoder runs once.

        Raises:
            InputError, BackendError: as `predict`.
        """
        self.decoder.check_embedding(embedding)
        given = point_coords, point_labels, box, mask_input
        checked = self.check_prompts(
            embedding.original_size, *given, scribble=scribble, region=embedding.region, clip=clip
        )
        prompts = to_input_frame(checked, embedding)
        if scribble is None:
            return prompts
        answers = self.decoder.answers(embedding, prompts, ambiguous_masks if multimask_output else single_mask)
        side, threshold = self.geometry.prompt_side, self.manifest.masks.threshold
        return replace(prompts, mask_input=mask_prompt(*answers, scribble, embedding, side, threshold=threshold))

    def predict_low_res(
        self,
        embedding: Embedding,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
    ) -> LowResPrediction:
        """What the decoder itself returns for the prompts of `predict`, for code that goes on from there.

        Returns:
            All masks of the decoder: float32 [B, M, L, L] logits over the padded square, and float32 [B, M] predicted
            IoU; B is 1 for one prompt. For SAM, M is 4: mask 0 is the single mask, 1 to 3 are those of an ambiguous
            prompt; `manifest.masks` says which they are.

        Raises:
            InputError, BackendError: as `predict`.
        """
        return self.decoder.low_res(embedding, self.prompts_for(embedding, point_coords, point_labels, box, mask_input))

    def predict_low_res_on_device(
        self,
        embedding: Embedding,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        *,
        check_finite: bool = True,
    ) -> LowResPrediction | DeviceLowResPrediction:
        """`predict_low_res`, whose results stay on the GPU with a TensorRT backend.

        B is limited to what one call takes (`BuildLimits.max_prompts`). For the check that all is finite, results are
        copied to the host, which waits for the GPU: `check_finite=False` leaves it out.

        Raises:
            InputError: as `predict`; or the prompts are too many for one call.
            BackendError: as `predict`.
        """
        prompts = self.prompts_for(embedding, point_coords, point_labels, box, mask_input)
        return self.decoder.low_res_on_device(embedding, prompts, check_finite)

    def close(self) -> None:
        """Give all memory back. May be called again; the model cannot be used afterwards."""
        self._session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
