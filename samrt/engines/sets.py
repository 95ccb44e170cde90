"""Engines in a bundle: sets of two, an encoder's and a decoder's, each set in a folder of its own."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samrt.bundle.contract import ROLES
from samrt.bundle.file_state import FileState, hash_file
from samrt.bundle.precisions import PRECISIONS
from samrt.engines.flavours import FLAVOURS
from samrt.engines.manifest import ENGINE_MANIFEST_NAME, EngineManifest, engine_file_name
from samrt.errors import BundleError, OutputError, Reason

ENGINES_FOLDER = "engines"

_MANIFEST_LIMIT = 1 << 20
_PREFIXES = tuple(f"{flavour}-" for flavour in FLAVOURS)
# In sets beside bundles of format 2, which an export replaces too.
_OLD_FILES = ("encoder.engine", "decoder.engine")
# Longer than any build writes and compares: a younger one may be at work.
_LEFTOVER_SECONDS = 3600


@dataclass(frozen=True)
class EngineSet:
    """An encoder's and a decoder's engine in one folder."""

    folder: Path
    manifest: EngineManifest

    def verified(self, graph: str) -> tuple[Path, FileState]:
        """The engine file of a role, compared with its hash, and its state when it was.

        Raises:
            BundleError: the file is missing or changed.
        """
        engine = self.manifest.engines[graph]
        path = self.folder / engine.graph.file
        try:
            sha256, state = hash_file(path)
        except OSError as error:
            raise BundleError(f"cannot read {path}: {error.strerror}; build the engines again") from error
        if (state.bytes, sha256) != (engine.content.bytes, engine.content.sha256):
            raise BundleError(
                f"{path} is not the file that was built: it is incomplete, damaged or was changed; build the engines "
                "again"
            )
        return path, state


@dataclass(frozen=True)
class BrokenEngineSet:
    """A folder in the place of an engine set whose engine.json cannot be used."""

    folder: Path
    problem: Reason


def find_engine_sets(bundle: Path) -> list[EngineSet | BrokenEngineSet]:
    """All engine sets in a bundle's folder, whether they fit or not, the best first: fp16, compared, TensorRT."""
    folder = bundle / ENGINES_FOLDER
    try:
        folders = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        return [BrokenEngineSet(folder, Reason(f"cannot read {folder}: {error.strerror}; check its permissions"))]
    return sorted(map(_read, folders), key=_rank)


def is_engines_folder(path: Path) -> bool:
    """Whether a folder holds nothing but what `build_bundle` puts there, so that it may be deleted with its bundle."""
    if path.name != ENGINES_FOLDER or path.is_symlink() or not path.is_dir():
        return False
    return all(_is_own(folder) for folder in path.iterdir())


def check_replaceable_set(folder: Path, shown: Path | None = None) -> None:
    """Find out whether a set may take the place of a folder: nothing is there, or a set and nothing else.

    In errors the folder is called `shown`.

    Raises:
        OutputError: something else is there, or it cannot be read.
    """
    shown = shown or folder
    try:
        if not folder.exists() or _is_own(folder):
            return
    except OSError as error:
        raise OutputError(f"cannot read the folder {shown}: {error.strerror}; check its permissions") from error
    raise OutputError(f"{shown} holds other things than engines, and would be replaced; move them elsewhere")


def remove_leftovers(bundle: Path) -> None:
    """Delete what builds that were killed while they wrote have left in a bundle's folder of engines."""
    for folder in (bundle / ENGINES_FOLDER).glob(".*"):
        with suppress(OSError):
            if _is_own(folder) and time.time() - folder.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _is_own(folder: Path) -> bool:
    """Whether a set, whole, damaged or half-written, lies there and nothing else."""
    if folder.is_symlink() or not folder.is_dir() or not folder.name.removeprefix(".").startswith(_PREFIXES):
        return False
    return set(os.listdir(folder)) <= {ENGINE_MANIFEST_NAME, *map(engine_file_name, ROLES), *_OLD_FILES}


def _read(folder: Path) -> EngineSet | BrokenEngineSet:
    manifest = folder / ENGINE_MANIFEST_NAME
    try:
        if manifest.stat().st_size > _MANIFEST_LIMIT:
            raise BundleError(f"{manifest} is larger than any {ENGINE_MANIFEST_NAME}; build the engines again")
        return EngineSet(folder, EngineManifest.from_json(manifest.read_bytes()))
    except OSError as error:
        return BrokenEngineSet(folder, Reason(f"cannot read {manifest}: {error.strerror}; build the engines again"))
    except BundleError as error:
        return BrokenEngineSet(folder, error.reason)


def _rank(engines: EngineSet | BrokenEngineSet) -> tuple[Any, ...]:
    if isinstance(engines, BrokenEngineSet):
        return (True,)
    built = engines.manifest
    unproven = built.verification is None
    return False, PRECISIONS[built.precision].gpu_rank, unproven, FLAVOURS.index(built.backend), engines.folder.name
