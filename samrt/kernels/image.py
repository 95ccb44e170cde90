"""Images to model input, and low-res logits to masks, on the GPU: kernels/samrt_image.h on device addresses.

Results equal those of `samrt.geometry`: resized values bit for bit, masks but for pixels whose logit is within
rounding of the threshold. Whoever owns the memory passes addresses and its stream, as with `samrt.kernels.library`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import PIL

from samrt.bundle.contract import Normalization, Size, resize_shape
from samrt.errors import BackendError
from samrt.kernels.library import Kernels

_PIXELS = {"rgb": 0, "bgr": 1, "nv12_bt601": 2, "nv12_bt709": 3}
_FORMATS = {"fp16": 0, "fp32": 2}
_MEAN_STD, _MIN_MAX = 0, 1
_PILLOW = tuple(int(part) for part in PIL.__version__.split(".")[:2])

MASK_STATS = np.dtype(
    [("area", "<u4"), ("above_high", "<u4"), ("above_low", "<u4"), ("box", "<i4", 4), ("runs", "<u4")]
)
"""`samrt_mask_stats`: pixels above the threshold, above threshold + offset and - offset (Meta's stability score is the
one over the other), box x0, y0, x1, y1 with inclusive corners, number of COCO runs."""


@dataclass(frozen=True)
class Preprocessing:
    """What becomes of images of one size.

    Attributes:
        original_size: (H, W) of the images; even sides for NV12.
        image_size: side S of the model's input.
        normalization: the model's, as its manifest has it.
        pixels: uint8 [H, W, 3] as "rgb" or "bgr"; or NV12 as cameras give it, of limited range, in BT.601 or BT.709.
        precision: of the result.
    """

    original_size: Size
    image_size: int
    normalization: Normalization
    pixels: Literal["rgb", "bgr", "nv12_bt601", "nv12_bt709"] = "rgb"
    precision: Literal["fp32", "fp16"] = "fp32"

    @property
    def input_size(self) -> Size:
        """Height and width of the resized image within S x S; (0, 0) for sizes that there are not."""
        if min(self.original_size) < 1 or self.image_size < 1:
            return 0, 0
        return resize_shape(*self.original_size, self.image_size)

    @property
    def vertical_first(self) -> bool:
        """Whether the installed Pillow resizes such images down their columns first, which changes some values by one.

        From Pillow 13 on: where the height loses more than twice as many pixels as the width. In 12.2 and 12.3: where
        it shrinks and is more than 100 times the width. Never before.
        """
        (height, width), (input_height, input_width) = self.original_size, self.input_size
        lost = height - input_height
        if _PILLOW >= (13, 0):
            return lost > 0 and lost > 2 * (width - input_width)
        return _PILLOW >= (12, 2) and lost > 0 and height > 100 * width


@dataclass(frozen=True)
class ImagePlanes:
    """Device addresses of an image, and bytes from each of its rows to the next.

    Attributes:
        address: of the first row; with NV12, of the luma uint8 [H, W].
        pitch: at least what a row has.
        chroma: NV12 only: uint8 [H / 2, W / 2, 2], Cb and Cr.
        chroma_pitch: at least W.
    """

    address: int
    pitch: int
    chroma: int = 0
    chroma_pitch: int = 0


@dataclass(frozen=True)
class MaskGeometry:
    """Sizes of low-res logits and of what they become.

    Attributes:
        masks: how many, at most 65535; with 0 nothing is done.
        low_res_size: side L of the logits.
        image_size: side S of the padded square that they cover.
        input_size: (h, w) of the resized image within it.
        original_size: (H, W) of the masks.
        precision: of the logits.
        threshold: mask is what lies above.
        stability_offset: by how much the threshold is raised and lowered for the stability score; not negative.
    """

    masks: int
    low_res_size: int
    image_size: int
    input_size: Size
    original_size: Size
    precision: Literal["fp32", "fp16"] = "fp32"
    threshold: float = 0.0
    stability_offset: float = 1.0


@dataclass(frozen=True)
class MaskOutputs:
    """Device addresses that are written; 0 for what is not wanted. One of `masks` and `stats` is needed.

    Attributes:
        masks: uint8 [masks, H, W], 1 and 0.
        stats: `MASK_STATS` [masks].
        runs: uint32 [masks, run_capacity], lengths of COCO's runs (column-major, of 0 first); needs `stats`. A mask
            with more of them than `run_capacity`, as its stats say, has its first `run_capacity` here.
    """

    masks: int = 0
    stats: int = 0
    runs: int = 0
    run_capacity: int = 0


class PreprocessArgs(ctypes.Structure):
    """`samrt_preprocess_args` of kernels/samrt_image.h; a test compares their layouts."""

    _fields_ = (
        ("image", ctypes.c_void_p),
        ("chroma", ctypes.c_void_p),
        ("image_pitch", ctypes.c_int64),
        ("chroma_pitch", ctypes.c_int64),
        ("out", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("pixels", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("input_height", ctypes.c_int32),
        ("input_width", ctypes.c_int32),
        ("image_size", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("normalization", ctypes.c_int32),
        ("vertical_first", ctypes.c_int32),
        ("mean", ctypes.c_float * 3),
        ("std", ctypes.c_float * 3),
    )


class MasksArgs(ctypes.Structure):
    """`samrt_masks_args` of kernels/samrt_image.h; a test compares their layouts."""

    _fields_ = (
        ("logits", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("stats", ctypes.c_void_p),
        ("runs", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("masks", ctypes.c_int32),
        ("low_res_size", ctypes.c_int32),
        ("image_size", ctypes.c_int32),
        ("input_height", ctypes.c_int32),
        ("input_width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("run_capacity", ctypes.c_int32),
        ("threshold", ctypes.c_float),
        ("stability_offset", ctypes.c_float),
    )


def preprocess_workspace_bytes(kernels: Kernels, what: Preprocessing) -> int:
    """Bytes of device memory, aligned to 16, that the next two functions need. Raises `BackendError` for bad sizes."""
    size = ctypes.c_size_t()
    kernels.call("samrt_preprocess_workspace", ctypes.byref(_preprocess_args(what)), ctypes.byref(size))
    return size.value


def preprocess_floor_bytes(kernels: Kernels, what: Preprocessing) -> int:
    """Bytes that cannot but cross memory: image in, model input out. Raises `BackendError` for bad sizes."""
    size = ctypes.c_int64()
    kernels.call("samrt_preprocess_floor", ctypes.byref(_preprocess_args(what)), ctypes.byref(size))
    return size.value


def prepare_preprocess(kernels: Kernels, what: Preprocessing, workspace: int, stream: int = 0) -> None:
    """Fill the workspace with the filter's weights, which serve every image of these sizes; not waited for.

    Raises:
        BackendError: sizes or the address are refused, or CUDA reported an error; the message says which.
    """
    args = _preprocess_args(what, workspace=workspace or None)
    kernels.call("samrt_preprocess_prepare", ctypes.byref(args), ctypes.c_void_p(stream or None))


def preprocess(
    kernels: Kernels, what: Preprocessing, image: ImagePlanes, out: int, workspace: int, stream: int = 0
) -> None:
    """Resize, normalise and pad one image, as `geometry.resize_image` and `normalize_and_pad` do.

    Args:
        kernels: the library.
        what: sizes and formats.
        image: where its pixels are.
        out: device address of [3, S, S] in `what.precision`, planes R, G and B; written.
        workspace: prepared for these sizes; calls that share one must not overlap in time.
        stream: a `cudaStream_t` as a number. The work is put on it and not waited for.

    Raises:
        BackendError: sizes, pitches or addresses are refused, or CUDA reported an error; the message says which.
    """
    args = _preprocess_args(
        what,
        image=image.address or None,
        image_pitch=image.pitch,
        chroma=image.chroma or None,
        chroma_pitch=image.chroma_pitch,
        out=out or None,
        workspace=workspace or None,
    )
    kernels.call("samrt_preprocess", ctypes.byref(args), ctypes.c_void_p(stream or None))


def masks_workspace_bytes(kernels: Kernels, geometry: MaskGeometry) -> int:
    """Bytes of device memory, aligned to 16, that `write_masks` needs. Raises `BackendError` for bad sizes."""
    size = ctypes.c_size_t()
    kernels.call("samrt_masks_workspace", ctypes.byref(_masks_args(geometry)), ctypes.byref(size))
    return size.value


def masks_floor_bytes(kernels: Kernels, geometry: MaskGeometry, outputs: MaskOutputs) -> int:
    """Bytes that cannot but cross memory: logits in, masks and stats out where `outputs` wants them.

    Runs, whose number depends on the masks, are not counted. Raises `BackendError` for bad sizes.
    """
    size = ctypes.c_int64()
    args = _masks_args(geometry, out=outputs.masks or None, stats=outputs.stats or None)
    kernels.call("samrt_masks_floor", ctypes.byref(args), ctypes.byref(size))
    return size.value


def write_masks(
    kernels: Kernels, geometry: MaskGeometry, logits: int, outputs: MaskOutputs, workspace: int, stream: int = 0
) -> None:
    """Masks, figures and COCO runs at the original's size from low-res logits, as `transforms.threshold_masks`.

    Args:
        kernels: the library.
        geometry: sizes and thresholds.
        logits: device address of [masks, L, L] in `geometry.precision`.
        outputs: what to write, and where.
        workspace: `masks_workspace_bytes` of scratch; calls that share one must not overlap in time.
        stream: a `cudaStream_t` as a number. The work is put on it and not waited for.

    Raises:
        BackendError: sizes or addresses are refused, or CUDA reported an error; the message says which.
    """
    args = _masks_args(
        geometry,
        logits=logits or None,
        out=outputs.masks or None,
        stats=outputs.stats or None,
        runs=outputs.runs or None,
        run_capacity=outputs.run_capacity,
        workspace=workspace or None,
    )
    kernels.call("samrt_masks", ctypes.byref(args), ctypes.c_void_p(stream or None))


def _preprocess_args(what: Preprocessing, **addresses: Any) -> PreprocessArgs:
    channels = ctypes.c_float * 3
    mean, std = what.normalization.mean, what.normalization.std
    input_height, input_width = what.input_size
    return PreprocessArgs(
        pixels=_number("pixels", what.pixels, _PIXELS),
        height=what.original_size[0],
        width=what.original_size[1],
        input_height=input_height,
        input_width=input_width,
        image_size=what.image_size,
        format=_number("precision", what.precision, _FORMATS),
        vertical_first=int(what.vertical_first),
        normalization=_MIN_MAX if mean is None or std is None else _MEAN_STD,
        mean=channels(*mean) if mean else channels(),
        std=channels(*std) if std else channels(),
        **addresses,
    )


def _masks_args(geometry: MaskGeometry, **addresses: Any) -> MasksArgs:
    return MasksArgs(
        masks=geometry.masks,
        low_res_size=geometry.low_res_size,
        image_size=geometry.image_size,
        input_height=geometry.input_size[0],
        input_width=geometry.input_size[1],
        height=geometry.original_size[0],
        width=geometry.original_size[1],
        format=_number("precision", geometry.precision, _FORMATS),
        threshold=geometry.threshold,
        stability_offset=geometry.stability_offset,
        **addresses,
    )


def _number(what: str, name: str, numbers: dict[str, int]) -> int:
    if name not in numbers:
        raise BackendError(f"{what} is one of {', '.join(numbers)}, not {name!r}")
    return numbers[name]
