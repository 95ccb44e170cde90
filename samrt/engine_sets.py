"""Engines in a bundle: sets of two, an encoder's and a decoder's, each set in a folder of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samrt.engine_manifest import ENGINE_MANIFEST_NAME, EngineManifest
from samrt.errors import BundleError
from samrt.files import sha256_of
from samrt.tensorrt.flavours import FLAVOURS

ENGINES_FOLDER = "engines"

_MANIFEST_LIMIT = 1 << 20


@dataclass(frozen=True)
class EngineSet:
    """An encoder's and a decoder's engine in one folder; `manifest` is None where `problem` says what is wrong."""

    folder: Path
    manifest: EngineManifest | None
    problem: str = ""

    def path_of(self, graph: str) -> Path:
        """The engine file of "encoder" or "decoder", compared with its hash.

        Raises:
            BundleError: the file is missing or changed.
        """
        assert self.manifest is not None
        engine = self.manifest.engines[graph]
        path = self.folder / engine.graph.file
        try:
            whole = path.stat().st_size == engine.content.bytes and sha256_of(path) == engine.content.sha256
        except OSError as error:
            raise BundleError(f"cannot read {path}: {error.strerror}; build the engines again") from error
        if not whole:
            raise BundleError(
                f"{path} is not the file that was built: it is incomplete, damaged or was changed; build the engines "
                "again with `samrt build`"
            )
        return path


def find_engine_sets(bundle: Path) -> list[EngineSet]:
    """All engine sets in a bundle's folder, whether they fit or not, the best first: fp16, then TensorRT."""
    folder = bundle / ENGINES_FOLDER
    try:
        folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []
    return sorted(map(_read, folders), key=_rank)


def is_engines_folder(path: Path) -> bool:
    """Whether a folder holds engine sets and nothing else, so that it may be deleted with its bundle."""
    if path.name != ENGINES_FOLDER or path.is_symlink() or not path.is_dir():
        return False
    for folder in path.iterdir():
        built = _read(folder).manifest if folder.is_dir() and not folder.is_symlink() else None
        if built is None:
            return False
        own = {ENGINE_MANIFEST_NAME, *(engine.graph.file for engine in built.engines.values())}
        if not set(os.listdir(folder)) <= own:
            return False
    return True


def _read(folder: Path) -> EngineSet:
    manifest = folder / ENGINE_MANIFEST_NAME
    try:
        if manifest.stat().st_size > _MANIFEST_LIMIT:
            raise BundleError(f"{manifest} is larger than any {ENGINE_MANIFEST_NAME}; build the engines again")
        return EngineSet(folder, EngineManifest.from_json(manifest.read_bytes()))
    except OSError as error:
        return EngineSet(folder, None, f"cannot read {manifest}: {error.strerror}; build the engines again")
    except BundleError as error:
        return EngineSet(folder, None, str(error))


def _rank(engines: EngineSet) -> tuple[Any, ...]:
    built = engines.manifest
    if built is None:
        return (True,)
    unproven = built.verification is None
    return False, built.precision != "fp16", FLAVOURS.index(built.backend), unproven, engines.folder.name
