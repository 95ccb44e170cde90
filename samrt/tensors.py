"""Torch tensors of callers, without importing torch: a caller who has tensors has imported it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray


def loaded_torch() -> Any:
    """The module torch where the process has imported it, else None."""
    return sys.modules.get("torch")


def is_tensor(value: object) -> bool:
    """Whether `value` is a torch tensor, subclasses (torchvision's) included."""
    tensor = getattr(loaded_torch(), "Tensor", None)
    return tensor is not None and isinstance(value, tensor)


def to_numpy(value: Any) -> NDArray[Any]:
    """An array or a tensor as an array; a tensor on the CPU shares its memory."""
    if not is_tensor(value):
        return np.asarray(value)
    tensor = value.detach().cpu()
    # The one number format of images and prompts that numpy lacks.
    array: NDArray[Any] = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return array


def to_tensor(array: Any) -> Any:
    """A tensor that shares the memory of an array, or of a `DeviceArray` where torch has its GPU; else a copy of it.

    Without torch, what was given.
    """
    torch = loaded_torch()
    if torch is None:
        return array
    if not isinstance(array, np.ndarray) and torch.cuda.is_available():
        return torch.from_dlpack(array)
    array = np.asarray(array)
    # Torch warns about memory that it may not write to.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
