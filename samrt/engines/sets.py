"""Engines in a bundle: sets of two, an encoder's and a decoder's, each set in a folder of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samrt.bundle.contract import ROLES
from samrt.bundle.file_state import FileState, hash_file
from samrt.bundle.folder import is_as_written
from samrt.bundle.precisions import PRECISIONS
from samrt.engines.flavours import FLAVOURS
from samrt.engines.manifest import (
    ENGINE_MANIFEST_NAME,
    REMEDY,
    EngineManifest,
    engine_file_name,
    engine_files_of_any_version,
)
from samrt.errors import BundleError, OutputError, Reason
from samrt.files import read_regular
from samrt.work_folder import is_at_work

ENGINES_FOLDER = "engines"

_MANIFEST_LIMIT = 1 << 20
# In sets beside bundles of format 2, which an export replaces too.
_OLD_FILES = ("encoder.engine", "decoder.engine")
_PREFIXES = tuple(f"{flavour}-" for flavour in FLAVOURS)


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
            raise BundleError(f"cannot read {path}: {error.strerror}; {REMEDY}") from error
        if (state.bytes, sha256) != (engine.content.bytes, engine.content.sha256):
            raise BundleError(
                f"{path} is not the file that was built: it is incomplete, damaged or was changed; {REMEDY}"
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
    """Whether a folder holds nothing but what `build_bundle` put there, so that it may be deleted with its bundle.

    Raises:
        OutputError: a process is building engines there, there is something else than engines, or a file has an
            engine's name and is not as it was built.
    """
    if path.name != ENGINES_FOLDER or path.is_symlink() or not path.is_dir():
        return False
    if any(map(is_at_work, path.iterdir())):
        raise OutputError("another process builds engines in this bundle; wait for its end, or choose another name")
    for folder in path.iterdir():
        place = f"{ENGINES_FOLDER}/{folder.name}"
        if not (folder.name.startswith(_PREFIXES) and _is_set(folder)):
            raise OutputError(
                f"{place} is not a set of engines as samrt builds them, and would be lost with the bundle; choose "
                f"another name, or move {place} elsewhere or delete it"
            )
        if changed := _changed(folder):
            raise OutputError(
                f"{place}/{changed} is not the file that samrt built, and would be lost with the bundle; choose "
                f"another name, or delete {place}"
            )
    return True


def check_replaceable_set(folder: Path, shown: Path | None = None) -> None:
    """Find out whether a set may take the place of a folder: nothing is there, or a set as it was built.

    In errors the folder is called `shown`.

    Raises:
        OutputError: something else is there, or it cannot be read.
    """
    shown = shown or folder
    try:
        if not folder.exists():
            return
        if not _is_set(folder):
            raise OutputError(f"{shown} holds other things than engines, and would be replaced; move them elsewhere")
        if changed := _changed(folder):
            raise OutputError(
                f"{shown / changed} is not the file that samrt built, and would be replaced; move it elsewhere, or "
                f"delete {shown}"
            )
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot read the folder {shown}: {error.strerror}; check its permissions") from error


def _is_set(folder: Path) -> bool:
    """Whether nothing but files with the names of a set's lies there."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return {path.name for path in folder.iterdir()} <= {
        ENGINE_MANIFEST_NAME,
        *map(engine_file_name, ROLES),
        *_OLD_FILES,
    }


def _changed(folder: Path) -> str | None:
    """The name of a file that is no engine.json, or lacks the size and hash that this says; None if there is none."""
    manifest = folder / ENGINE_MANIFEST_NAME
    try:
        read = manifest.is_file() and manifest.stat().st_size <= _MANIFEST_LIMIT
        entries = engine_files_of_any_version(manifest.read_bytes()) if read else {}
    except BundleError:
        return ENGINE_MANIFEST_NAME
    for path in folder.iterdir():
        entry = entries.get(path.name)
        if path != manifest and not (entry and is_as_written(path, entry)):
            return path.name
    return None


def _read(folder: Path) -> EngineSet | BrokenEngineSet:
    manifest = folder / ENGINE_MANIFEST_NAME
    try:
        return EngineSet(folder, EngineManifest.from_json(read_regular(manifest, _MANIFEST_LIMIT)))
    except OSError as error:
        return BrokenEngineSet(folder, Reason(f"cannot read {manifest}: {error.strerror}; {REMEDY}"))
    except BundleError as error:
        return BrokenEngineSet(folder, error.reason)


def _rank(engines: EngineSet | BrokenEngineSet) -> tuple[Any, ...]:
    if isinstance(engines, BrokenEngineSet):
        return (True,)
    built = engines.manifest
    unproven = built.verification is None
    return False, PRECISIONS[built.precision].gpu_rank, unproven, FLAVOURS.index(built.backend), engines.folder.name
