"""What code written for Meta's `Sam`, a `torch.nn.Module`, asks of a loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from samrt.errors import BackendError, InputError, Remedy
from samrt.tensors import is_tensor, loaded_torch, to_numpy, to_tensor

if TYPE_CHECKING:
    from typing_extensions import Self

    from samrt.backends.session import Session
    from samrt.bundle.folder import Bundle
    from samrt.encoding import Encoder

# Other arguments of torch.nn.Module.to, which change nothing here.
_IGNORED = frozenset({"non_blocking", "memory_format"})


class ImageEncoder:
    """A model's image encoder under the name that it has in Meta's `Sam`.

    Attributes:
        img_size: side of the square that it takes, in pixels.
    """

    def __init__(self, encoder: Encoder, img_size: int) -> None:
        self.img_size = img_size
        self._encoder = encoder

    def __call__(self, x: Any) -> Any:
        """Encode images that are normalised and padded: array or tensor [B, 3, S, S] to one [B, C, h, w], float32.

        Where a model has several features, to a mapping of their names.

        Raises:
            InputError: another shape.
            BackendError: the encoder failed, or its result is not finite.
        """
        images = to_numpy(x).astype(np.float32, copy=False)
        S = self.img_size
        if images.ndim != 4 or images.shape[0] == 0 or images.shape[1:] != (3, S, S):
            raise InputError(
                f"image_encoder needs [B, 3, {S}, {S}], not {list(images.shape)}; resize and pad images to "
                "image_encoder.img_size, not to the 1024 of Meta's models"
            )
        at_once = self._encoder.images_per_call
        pieces = [self._encoder.run(images[first : first + at_once]) for first in range(0, len(images), at_once)]
        features = {name: np.concatenate([np.asarray(piece[name]) for piece in pieces]) for name in pieces[0]}
        shown = {name: to_tensor(each).to(x.device) if is_tensor(x) else each for name, each in features.items()}
        return shown if len(shown) > 1 else next(iter(shown.values()))


class SamModule:
    """The part of a `Model` that Meta's `Sam` has too."""

    image_format = "RGB"  # of the images that Meta's `Sam` takes

    _bundle: Bundle
    _session: Session
    _encoder: Encoder
    _gpu: int  # where a GPU backend runs

    @property
    def image_encoder(self) -> ImageEncoder:
        """The image encoder; code written for Meta's `Sam` reads its `img_size`."""
        return ImageEncoder(self._encoder, self._bundle.manifest.geometry.encoder_side)

    @property
    def mask_threshold(self) -> float:
        """Logits above it are mask."""
        return self._bundle.manifest.masks.threshold

    @property
    def device(self) -> Any:
        """Where tensors for this model belong: its GPU, if torch has it too; else the CPU.

        A `torch.device` where torch is loaded, else its name.
        """
        torch = loaded_torch()
        if torch is None:
            return self._place
        return torch.device(self._place if torch.cuda.is_available() else "cpu")

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Check that the model already is where and what `torch.nn.Module.to` would make it; it cannot be moved.

        Args:
            *args: a device ("cuda", "cuda:1", 1, a `torch.device`), a `torch.dtype`, or a tensor that has both.
            **kwargs: `device`, `dtype`; `non_blocking` and `memory_format` are ignored.

        Returns:
            The model itself.

        Raises:
            BackendError: it runs on another device or computes in another precision.
        """
        unknown = kwargs.keys() - _IGNORED - {"device", "dtype"}
        if unknown:
            raise TypeError(f"Model.to() got an unexpected keyword argument {sorted(unknown)[0]!r}")
        dtype = getattr(loaded_torch(), "dtype", ())
        for wanted in (*args, kwargs.get("device"), kwargs.get("dtype")):
            if is_tensor(wanted):
                self.to(wanted.device, wanted.dtype)
            elif isinstance(wanted, dtype):
                self._check_dtype(str(wanted))
            elif isinstance(wanted, int) and not isinstance(wanted, bool):
                self._check_device(f"cuda:{wanted}")
            elif isinstance(wanted, str) or hasattr(wanted, "index"):  # its name, or a torch.device
                self._check_device(str(wanted))
        return self

    def eval(self) -> Self:
        """The model itself: it only predicts."""
        return self

    @property
    def _place(self) -> str:
        return "cpu" if self._session.choice.engines is None else f"cuda:{self._gpu}"

    def _check_device(self, wanted: str) -> None:
        if wanted == self._place or (wanted == "cuda" and self._place.startswith("cuda")):
            return
        choice = self._session.choice
        facts = f"the model runs on {self._place} with {choice.backend} and cannot be moved to {wanted}"
        if choice.engines is not None:
            remedy = Remedy("leave it there, or load the bundle with {backend}", {"backend": "onnxruntime"})
        elif not wanted.startswith("cuda"):
            remedy = Remedy("leave it on the CPU")
        else:
            # The variable is for programs that take the GPU because torch has one.
            facts += "".join(f"; its engines were skipped: {reason.facts}" for reason in choice.skipped[:1])
            remedy = Remedy(
                "leave it on the CPU (a program that chooses for itself does so with CUDA_VISIBLE_DEVICES=''), or make "
                "engines for the GPU with {build_bundle} and load them with {backend}",
                {"backend": "tensorrt"},
            )
        raise BackendError(facts, remedy)

    def _check_dtype(self, wanted: str) -> None:
        precision = self._session.choice.form.precision
        # Inputs and results are float32 in every precision.
        if wanted == "torch.float32" or (wanted == "torch.float16" and precision == "fp16"):
            return
        raise BackendError(
            f"the model computes in {precision} and cannot be converted to {wanted}",
            Remedy(
                "keep it as it is, or export with {precisions} and load the bundle with {precision}",
                {"precisions": ("fp32", "fp16"), "precision": "fp16"},
            ),
        )
