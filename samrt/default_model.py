"""The model that comes with samrt: small, our own, for photographs of any kind (docs/default_model.md)."""

from __future__ import annotations

from pathlib import Path

from samrt.errors import BundleError

_FOLDER = Path(__file__).resolve().parent / "default.samrt"


def default_bundle() -> Path:
    """The folder of the bundle in the installed package. Copy it before you build engines into it.

    Raises:
        BundleError: this installation was made without it.
    """
    if not _FOLDER.is_dir():
        raise BundleError(
            f"this installation of samrt lacks its model, which should lie in {_FOLDER}; install samrt again, "
            "or name a bundle of your own"
        )
    return _FOLDER
