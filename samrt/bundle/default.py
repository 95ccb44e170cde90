"""The model that comes with samrt: small, our own, for photographs of any kind (docs/default_model.md)."""

from __future__ import annotations

import os
from pathlib import Path

from samrt.bundle.manifest import MANIFEST_NAME
from samrt.errors import BundleError

_FOLDER = Path(__file__).resolve().parents[1] / "default.samrt"


def default_bundle() -> Path:
    """The folder of the bundle in the installed package. Engines are built in a copy of it.

    Raises:
        BundleError: this installation was made without it.
    """
    if not (_FOLDER / MANIFEST_NAME).is_file():
        raise BundleError(
            f"this installation of samrt lacks its model, which should lie in {_FOLDER}; install samrt again, "
            "or name a bundle of your own"
        )
    return _FOLDER


def is_default(bundle: str | os.PathLike[str]) -> bool:
    """Whether a path is the packaged folder, which belongs to the installation and is not to be written to."""
    return os.path.realpath(bundle) == os.path.realpath(_FOLDER)
