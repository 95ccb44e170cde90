"""From the path of a checkpoint, as Meta's functions take it, to a bundle."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from samrt.bundle.folder import Bundle, open_bundle
from samrt.errors import BundleError
from samrt.files import sha256_of

_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
# Files that are no checkpoint, whatever is beside them.
_OTHERS = (".json", ".onnx", ".zip")


def bundle_of(checkpoint: str | os.PathLike[str]) -> Bundle:
    """The bundle at this path, or the one beside a checkpoint that was exported from it.

    Many programs know the path of their checkpoint, and none else: they run once it was exported beside itself.

    Raises:
        BundleError: there is no bundle, or it is damaged, or it was made from another checkpoint.
    """
    path = Path(checkpoint)
    if path.is_dir() or path.suffix in _OTHERS or not (path.is_file() or path.suffix in _SUFFIXES):
        return open_bundle(path)
    beside = path.with_suffix(".samrt")
    # The user of a program that is not written for samrt has a shell, and no call of `samrt_export` in reach.
    command = f"samrt export {shlex.quote(str(path))} -o {shlex.quote(str(beside))}"
    if not beside.exists():
        there = "is a torch checkpoint" if path.exists() else "does not exist, and would be a torch checkpoint"
        raise BundleError(f"{path} {there}; samrt runs bundles. Make one that is found here with: {command}")
    bundle = open_bundle(beside)
    source = bundle.manifest.source
    same = source.sha256 == sha256_of(path) if path.exists() else source.name == path.name
    if not same:
        raise BundleError(f"the bundle {beside} was made from another checkpoint than {path}; run again: {command}")
    return bundle
