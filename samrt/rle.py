"""Masks as COCO writes them: compressed run-length encoding and boxes.

The format is that of `pycocotools.mask`: the lengths of alternating runs of 0 and 1 in column-major order, from the
fourth run on as the difference to the run two before; each number in groups of five bits, least significant first,
written as the characters `0` to `o`. It is done in numpy here so that the runtime needs neither pycocotools nor a
compiler.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from samrt.errors import InputError

# As image files may have: samrt/images/limits.py.
MAX_PIXELS = 2**28
# pycocotools holds counts in 32 bits, so a difference of two has at most 33: seven groups of five bits.
_MAX_GROUPS = 7
# For the same reason no mask has more pixels.
_MOST_PIXELS = 2**32 - 1


def encode(mask: npt.NDArray[np.bool_]) -> dict[str, object]:
    """Compress a mask.

    Args:
        mask: bool [H, W].

    Returns:
        `{"size": [H, W], "counts": str}`, ready for JSON and for `pycocotools.mask.decode`.

    Raises:
        InputError: the mask is not bool or not two-dimensional.
    """
    _check_mask(mask)
    height, width = mask.shape
    flat = _transposed(mask).reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(edges)
    if flat.size and flat[0]:
        # The first run is always of zeros.
        runs = np.concatenate([[0], runs])
    return {"size": [height, width], "counts": _to_string(runs)}


def decode(rle: Mapping[str, object], *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.bool_]:
    """Expand a compressed mask. It takes a byte for each pixel, and twice that on the way.

    Args:
        rle: `{"size": [H, W], "counts": str or ASCII bytes}` as from `encode` or `pycocotools.mask.encode`.
        max_pixels: the largest H x W to expand, since a few characters may stand for any number of pixels. The default
            is the limit of image files; arrays may be larger.

    Returns:
        bool [H, W], C-contiguous.

    Raises:
        InputError: a key is missing or of another type, `counts` holds other characters or ends inside a number, or
            its runs do not fill H x W pixels, or are more than `max_pixels`.
    """
    height, width = _size_of(rle)
    runs = _runs_of(rle, height, width)
    if max(height, width, height * width) > max_pixels:
        raise InputError(
            f"an RLE of {height} x {width} pixels is larger than max_pixels={max_pixels:,}; raise that if the memory "
            "allows it"
        )
    ones = np.zeros(runs.size, np.bool_)
    ones[1::2] = True
    return _transposed(np.repeat(ones, runs).reshape(width, height))


class Expanded(Sequence[npt.NDArray[np.bool_]]):
    """Compressed masks as a sequence of bool [H, W], each expanded when it is asked for."""

    def __init__(self, rles: Sequence[Mapping[str, object]]) -> None:
        self._rles = rles

    def __len__(self) -> int:
        return len(self._rles)

    def __getitem__(self, index: Any) -> Any:
        return decode(self._rles[index])


def area_and_box(rle: Mapping[str, object]) -> tuple[int, tuple[int, int, int, int]]:
    """The area of a compressed mask in pixels, and its `bounding_box`, without expanding it.

    Args:
        rle: as for `decode`.

    Raises:
        InputError: as `decode`.
    """
    height, width = _size_of(rle)
    ends = np.cumsum(_runs_of(rle, height, width))
    first, last = ends[0:-1:2], ends[1::2] - 1
    first, last = first[last >= first], last[last >= first]
    if first.size == 0:
        return 0, (0, 0, 0, 0)
    # A run that goes on in the next column holds the last row of one and the first row of the other.
    wraps = bool((first // height < last // height).any())
    top, bottom = (0, height - 1) if wraps else (int((first % height).min()), int((last % height).max()))
    left, right = int(first[0] // height), int(last[-1] // height)
    return int((last - first + 1).sum()), (left, top, right - left + 1, bottom - top + 1)


def bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The smallest box around a mask as COCO's (x, y, width, height) in pixels; (0, 0, 0, 0) for an empty mask.

    Args:
        mask: bool [H, W].

    Raises:
        InputError: the mask is not bool or not two-dimensional.
    """
    _check_mask(mask)
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    if columns.size == 0:
        return 0, 0, 0, 0
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


def _check_mask(mask: object) -> None:
    if not isinstance(mask, np.ndarray):
        raise InputError(f"a mask must be an array, bool [H, W], not {type(mask).__name__}")
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise InputError(f"a mask must be bool [H, W], got {mask.dtype} {list(mask.shape)}; threshold it first")


def _transposed(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """C-contiguous; OpenCV goes through blocks, which is ten times as fast as numpy on a large mask."""
    if mask.size == 0 or mask.T.flags.c_contiguous:
        return np.ascontiguousarray(mask.T)
    return np.asarray(cv2.transpose(np.ascontiguousarray(mask).view(np.uint8))).view(np.bool_)


def _to_string(runs: npt.NDArray[np.int64]) -> str:
    numbers = runs.copy()
    numbers[3:] -= runs[1:-2]
    shifts = 5 * np.arange(_MAX_GROUPS)
    groups = (numbers[:, None] >> shifts) & 0x1F
    # A group is followed by another while the number does not fit, as a signed one, in the bits so far.
    limits = np.int64(16) << shifts
    more = (numbers[:, None] < -limits) | (numbers[:, None] >= limits)
    used = np.ones_like(more)
    used[:, 1:] = more[:, :-1]
    characters = groups + 0x20 * more + ord("0")
    return str(characters[used].astype(np.uint8).tobytes(), "ascii")


def _from_string(counts: object) -> npt.NDArray[np.int64]:
    if isinstance(counts, str):
        counts = counts.encode("ascii", errors="replace")
    if not isinstance(counts, bytes):
        raise InputError(
            f'an RLE\'s "counts" must be a compressed string, got {type(counts).__name__}; '
            "compress lists of runs with pycocotools.mask.frPyObjects"
        )
    groups = np.frombuffer(counts, np.uint8).astype(np.int64) - ord("0")
    if groups.size == 0:
        return groups
    last = groups & 0x20 == 0
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    lengths = np.diff(np.concatenate([starts, [groups.size]]))
    if groups.min() < 0 or groups.max() > 0x3F or not last[-1] or lengths.max() > _MAX_GROUPS:
        raise InputError('damaged RLE: "counts" is cut short or holds foreign characters; write it again from the mask')
    place = np.arange(groups.size) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((groups & 0x1F) << (5 * place), starts)
    negative = groups[last] & 0x10 != 0
    numbers -= negative.astype(np.int64) << (5 * lengths)
    runs: npt.NDArray[np.int64] = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    return runs


def _runs_of(rle: Mapping[str, object], height: int, width: int) -> npt.NDArray[np.int64]:
    runs = _from_string(rle.get("counts"))
    # No run is longer than the mask, or their sum could overflow to its number of pixels.
    pixels = height * width
    if runs.size == 0 or runs.min() < 0 or runs.max() > pixels or runs.sum() != pixels:
        raise InputError(
            f"damaged RLE: its runs do not fill {height} x {width} pixels; write it again from the mask, "
            'and check that "size" is [height, width]'
        )
    return runs


def _size_of(rle: Mapping[str, object]) -> tuple[int, int]:
    if not isinstance(rle, Mapping):
        raise InputError(f'an RLE must be a mapping with "size" and "counts", not {type(rle).__name__}')
    size = rle.get("size")
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(type(n) is int and n >= 0 for n in size):
        raise InputError(f'an RLE\'s "size" must be [height, width] in pixels, got {reprlib.repr(size)}')
    if size[0] * size[1] > _MOST_PIXELS:
        raise InputError(f"an RLE of {size[0]} x {size[1]} pixels has more than the format counts, {_MOST_PIXELS:,}")
    return size[0], size[1]
