"""Bundles on disk: folders, opened only after every file in them was found whole."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from samrt.bundle.contract import Graph
from samrt.bundle.file_state import FileState, Patience, hash_file
from samrt.bundle.graph_check import check_graph
from samrt.bundle.manifest import MANIFEST_NAME, FileEntry, Form, Manifest, files_of_any_version
from samrt.errors import BundleError, OutputError, Remedy
from samrt.files import path_of, sha256_of

_MANIFEST_LIMIT = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files all have the size and the hash that its manifest declares.

    Attributes:
        path: its folder, as it was named.
        manifest: the content of manifest.json.
        states: of each file, when it was compared.
        folder: `path` in full, which holds after a change of the working folder.
    """

    path: Path
    manifest: Manifest
    states: Mapping[str, FileState] = field(repr=False, compare=False)
    folder: Path = field(repr=False, compare=False)

    def compare_again(self, form: Form) -> dict[Path, FileState]:
        """States of the files of `form`, once each was found to have the content that it had: for a forked child.

        Raises:
            BundleError: one of them is gone, or has other content.
        """
        states = {}
        for name in self.manifest.files_of(form):
            path = self.folder / name
            try:
                states[path] = FileState.of(path)
                if states[path] == self.states[name]:
                    continue
                sha256, states[path] = hash_file(path)
            except OSError as error:
                raise BundleError(
                    f"cannot read {path} ({error.strerror}), and a process that was forked after the model was loaded "
                    "opens it again; put the bundle back, or load the model after the fork"
                ) from error
            if sha256 != self.manifest.files[name].sha256:
                raise BundleError(
                    f"{path} has changed since the model was loaded, and a process that was forked after that opens "
                    "it again; load the model after the fork"
                )
        return states

    def graph_file(self, graph: Graph) -> Path:
        """Where a graph of the manifest lies, once it was found to ask a runtime only for what bundles need.

        Raises:
            BundleError: it asks for more, for example for a file that is not in the manifest.
        """
        path = self.path_of(graph.file)
        try:
            check_graph(path, self.manifest.files)
        except OSError as error:
            raise BundleError(f"cannot read {path}: {error.strerror}; check its permissions") from error
        return path

    def path_of(self, name: str) -> Path:
        """Where the file `name` of the manifest lies.

        Raises:
            BundleError: the manifest has no such file.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} has no file {name!r}; it has {', '.join(self.manifest.files)}")
        return self.folder / name


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open a bundle and compare every file with the size and SHA-256 in its manifest, before anything parses it.

    Files beside those of the manifest are left alone. A bundle that another process replaces meanwhile is read again.

    Raises:
        BundleError: there is no bundle at `path`, or one of its files is missing, truncated or changed.
    """
    path = path_of(path, "the bundle", BundleError)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from error
    if is_folder:
        return _read_folder(path)
    if not exists:
        raise BundleError(f"there is no bundle at {path}", Remedy("check the path, or make one with {export}"))
    # Asked of a pipe or a device, it would wait or read without an end.
    if path.is_file() and zipfile.is_zipfile(path):
        raise BundleError(
            f"{path} is a file, and a bundle is a folder",
            Remedy("unpack a bundle's zip to a folder and name that; make a bundle of a checkpoint with {export}"),
        )
    raise BundleError(
        f"{path} is a file, and a bundle is a folder", Remedy("make a bundle of a checkpoint with {export}")
    )


def check_replaceable(
    folder: Path, belongs: Callable[[Path], bool] = lambda _: False, shown: Path | None = None
) -> None:
    """Find out before an export whether a bundle may take the place of `folder`.

    It may if nothing is there, if the folder is empty, or if it holds a manifest, the files that this describes, with
    the content that they had, what `belongs` says goes with them, and nothing else. What is there and is not a folder
    is `replacing_folder`'s to judge. In errors the folder is called `shown`.

    Raises:
        OutputError: the folder holds something else, or cannot be read.
    """
    shown = shown or folder
    try:
        found = list(folder.iterdir()) if folder.is_dir() else []
        entries = _entries(folder / MANIFEST_NAME)
        strange = [path for path in found if not (path.name in entries and path.is_file()) and not belongs(path)]
        if strange:
            raise OutputError(
                f"{shown} is a folder that holds other things than a bundle, such as {strange[0].name}; choose another "
                "name"
            )
        for path in found:
            entry = entries.get(path.name)
            if entry is not None and not is_as_written(path, entry):
                raise OutputError(
                    f"{path.name} in {shown} is not the file of that name that samrt wrote, and would be lost; choose "
                    "another name, or delete the folder"
                )
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot read the folder {shown}: {error.strerror}; check its permissions") from error


def is_as_written(path: Path, entry: FileEntry) -> bool:
    """Whether a regular file has the size and hash of its entry. Raises OSError."""
    return path.is_file() and path.stat().st_size == entry.bytes and sha256_of(path) == entry.sha256


def _entries(manifest: Path) -> dict[str, FileEntry | None]:
    """What a manifest says of the files beside it, and itself, of which nobody says anything; nothing if it is none."""
    try:
        if manifest.is_file() and manifest.stat().st_size <= _MANIFEST_LIMIT:
            return {MANIFEST_NAME: None, **files_of_any_version(manifest.read_bytes())}
    except BundleError:
        # Whatever that manifest is, it does not say which of the files are a bundle's.
        pass
    return {}


def _read_folder(path: Path) -> Bundle:
    patience = Patience()
    while True:
        before = _state_of_folder(path)
        try:
            return _verified(path)
        except BundleError:
            # Half of the files may be of one bundle and half of the next: then nothing is damaged.
            if _state_of_folder(path) == before or patience.is_over():
                raise


def _state_of_folder(path: Path) -> tuple[FileState, FileState] | None:
    try:
        return FileState.of(path), FileState.of(path / MANIFEST_NAME)
    except OSError:
        return None


def _verified(path: Path) -> Bundle:
    """The bundle in the folder `path`, its files checked."""
    manifest_path = path / MANIFEST_NAME
    states: dict[str, FileState] = {}
    try:
        if not manifest_path.is_file():
            raise BundleError(f"{path} has no {MANIFEST_NAME}, so it is not a bundle", Remedy("make one with {export}"))
        if manifest_path.stat().st_size > _MANIFEST_LIMIT:
            raise BundleError(f"{MANIFEST_NAME} in {path} is larger than any manifest; export the checkpoint again")
        manifest = _read_manifest(manifest_path)
        for name, entry in manifest.files.items():
            file = path / name
            if not file.is_file():
                raise BundleError(f"{name} is missing in {path}; copy the bundle again, or export again")
            size = file.stat().st_size
            if size != entry.bytes:
                raise BundleError(
                    f"{name} in {path} has {size} bytes, the manifest says {entry.bytes}: the copy is incomplete or "
                    "the file was changed; copy the bundle again, or export again"
                )
            sha256, states[name] = hash_file(file)
            if sha256 != entry.sha256:
                raise BundleError(
                    f"{name} in {path} does not have the SHA-256 of the manifest: it is damaged or was tampered with; "
                    "copy the bundle again from a source that you trust, or export again"
                )
    except OSError as error:
        raise BundleError(f"cannot read {error.filename or path}: {error.strerror}; check its permissions") from error
    return Bundle(path, manifest, states, path.absolute())


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.from_json(path.read_bytes())
    except BundleError as error:
        raise BundleError(f"{path.parent}: {error.facts}", error.remedy) from error
