"""The 16-bit number formats in numpy, which lacks one of them. Their values are kept as float32, which holds both."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = {"fp16": 65504.0, "bf16": float(np.float32(2.0**127 * (2 - 2.0**-7)))}


def to_bits(values: NDArray[Any], precision: str) -> NDArray[np.uint16]:
    """Round to nearest even, and give the bits."""
    if precision == "fp16":
        return values.astype(np.float16).view(np.uint16)
    bits = values.astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded)


def from_bits(bits: NDArray[np.uint16], precision: str) -> NDArray[np.float32]:
    if precision == "fp16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(values: NDArray[Any], precision: str) -> NDArray[np.float32]:
    """The nearest values that the format holds."""
    return from_bits(to_bits(values, precision), precision)
