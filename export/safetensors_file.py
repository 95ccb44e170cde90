"""Reading safetensors files, through the package of that name."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from samrt.errors import BundleError

_FORMATS = (None, "pt")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name.

    Raises:
        BundleError: the package is not installed, or the file is damaged or of another framework.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise BundleError(
            f"{path} is a safetensors file, and reading it needs the package safetensors, not installed here; "
            "run: pip install safetensors"
        ) from error
    try:
        with safe_open(path, framework="pt") as file:
            framework = (file.metadata() or {}).get("format")
            if framework not in _FORMATS:
                raise BundleError(
                    f"{path} holds weights of another framework ({framework[:80]!r}), whose arrays are laid out "
                    "differently; save the PyTorch model's state dict"
                )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except SafetensorError as error:
        reason = str(error).splitlines()[0]
        raise BundleError(
            f"the checkpoint {path} is truncated or damaged ({reason}); download or copy it again"
        ) from error
