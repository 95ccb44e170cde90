"""Reading safetensors files, through the package of that name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from samrt.errors import BundleError

_FORMATS = (None, "pt")
# A hundred bytes for each of 40,000 tensors; what is made of it takes far more.
_LONGEST_HEADER = 1 << 22
_LENGTH = 8


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name.

    Raises:
        BundleError: the package is not installed, or the file is damaged or of another framework.
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise BundleError(
            f"{path} is a safetensors file, and reading it needs the package safetensors, not installed here; "
            "run: pip install safetensors"
        ) from error
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            framework = (file.metadata() or {}).get("format")
            if framework not in _FORMATS:
                raise BundleError(
                    f"{path} holds weights of another framework ({framework[:80]!r}), whose arrays are laid out "
                    "differently; save the PyTorch model's state dict"
                )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except (BundleError, OSError):
        raise
    except Exception as error:  # the package's own, torch's, and others where a header is made to mislead
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BundleError(
            f"the checkpoint {path} is truncated or damaged ({reason}); download or copy it again"
        ) from error


def _check_header(path: Path) -> None:
    """Raises ValueError where the tensors are not what the file holds, each byte in one tensor: the format's rule."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"its header claims {length:,} bytes, and that of a model has some thousands")
        header = json.loads(file.read(length), object_pairs_hook=_once)
    header.pop("__metadata__", None)
    place = 0
    for begin, end, numbers in sorted(map(_range, header.values())):
        # No number has less than half a byte.
        if begin != place or numbers > 2 * (end - begin):
            raise ValueError("a tensor in its header claims bytes that are not its own")
        place = end
    if place != path.stat().st_size - _LENGTH - length:
        raise ValueError("the tensors in its header are not as long as the file")


def _range(tensor: dict[str, Any]) -> tuple[int, int, int]:
    """First byte, the end, and how many numbers."""
    begin, end = tensor["data_offsets"]
    sides = [begin, end, *tensor["shape"]]
    if not all(type(side) is int and 0 <= side < 1 << 63 for side in sides) or begin > end:
        raise ValueError("a tensor in its header has a shape or place that is not of whole numbers")
    numbers = 1
    for side in sides[2:]:
        # So far at most, as a product of many can be longer than any memory.
        numbers = min(numbers * side, 1 << 63)
    return begin, end, numbers


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header has a name twice")
    return found
