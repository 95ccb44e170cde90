"""Bundles on disk: folders, opened only after every file in them was found whole."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from samrt.bundle.manifest import MANIFEST_NAME, Form, Manifest, files_of_any_version
from samrt.errors import BundleError, OutputError, Remedy
from samrt.files import sha256_of

_MANIFEST_LIMIT = 1 << 20

# Device, inode, size and time of change: a file that keeps them keeps its content.
Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files all have the size and the hash that its manifest declares.

    Attributes:
        path: its folder.
        manifest: the content of manifest.json.
        folder: `path` in full, which holds after a change of the working folder.
        stamps: of the files, by name, when they were checked.
    """

    path: Path
    manifest: Manifest
    folder: Path = field(repr=False, compare=False)
    stamps: Mapping[str, Stamp] = field(repr=False, compare=False)

    def path_of(self, name: str) -> Path:
        """Where the file `name` of the manifest lies.

        Raises:
            BundleError: the manifest has no such file.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} has no file {name!r}; it has {', '.join(self.manifest.files)}")
        return self.path / name

    def check_unchanged(self, form: Form) -> None:
        """Find out before the files of `form` are opened again whether they are those that were checked.

        Raises:
            BundleError: one of them is gone, or has other content.
        """
        for name in self.manifest.files_of(form):
            path = self.folder / name
            try:
                # A copy in the same place is as good.
                same = _stamp_of(path) == self.stamps[name] or sha256_of(path) == self.manifest.files[name].sha256
            except OSError as error:
                raise BundleError(
                    f"cannot read {path} ({error.strerror}), which a process forked after the model was loaded needs "
                    "again; put the bundle back, or load the model after the fork"
                ) from error
            if not same:
                raise BundleError(
                    f"{path} has changed since the model was loaded, and a process forked after that needs it as it "
                    "was; load the model again, after the fork"
                )


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open a bundle and compare every file with the size and SHA-256 in its manifest, before anything parses it.

    Files beside those of the manifest are left alone.

    Raises:
        BundleError: there is no bundle at `path`, or one of its files is missing, truncated or changed.
    """
    path = Path(path)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from error
    if is_folder:
        manifest, stamps = _verified(path)
        return Bundle(path, manifest, path.absolute(), stamps)
    if not exists:
        raise BundleError(f"there is no bundle at {path}", Remedy("check the path, or make one with {export}"))
    if zipfile.is_zipfile(path):
        raise BundleError(
            f"{path} is a file, and a bundle is a folder",
            Remedy("unpack a bundle's zip to a folder and name that; make a bundle of a checkpoint with {export}"),
        )
    raise BundleError(
        f"{path} is a file, and a bundle is a folder", Remedy("make a bundle of a checkpoint with {export}")
    )


def check_replaceable(folder: str | os.PathLike[str], belongs: Callable[[Path], bool] = lambda _: False) -> None:
    """Find out before an export whether a bundle may take the place of `folder`.

    It may if nothing is there, if the folder is empty, or if it holds a manifest, the files in it, what `belongs`
    says goes with them, and nothing else. What is there and is not a folder is `replacing_folder`'s to judge.

    Raises:
        OutputError: the folder holds something else, or cannot be read.
    """
    folder = Path(folder)
    try:
        found = list(folder.iterdir()) if folder.is_dir() else []
        if not found:
            return
        manifest = folder / MANIFEST_NAME
        if manifest.is_file() and manifest.stat().st_size <= _MANIFEST_LIMIT:
            own = {MANIFEST_NAME, *files_of_any_version(manifest.read_bytes())}
            found = [path for path in found if not (path.name in own and path.is_file()) and not belongs(path)]
            if not found:
                return
    except OSError as error:
        raise OutputError(f"cannot read the folder {folder}: {error.strerror}; check its permissions") from error
    except BundleError:
        # Whatever that manifest is, it does not say which of the files are a bundle's.
        pass
    raise OutputError(
        f"{folder} is a folder that holds other things than a bundle, such as {found[0].name}; choose another name"
    )


def _verified(path: Path) -> tuple[Manifest, dict[str, Stamp]]:
    """The manifest in the folder `path` and the stamps of its files, which are checked."""
    stamps = {}
    manifest_path = path / MANIFEST_NAME
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
            # Before it is read: what changes meanwhile has another stamp afterwards.
            stamp = stamps[name] = _stamp_of(file)
            size = stamp[2]
            if size != entry.bytes:
                raise BundleError(
                    f"{name} in {path} has {size} bytes, the manifest says {entry.bytes}: the copy is incomplete or "
                    "the file was changed; copy the bundle again, or export again"
                )
            if sha256_of(file) != entry.sha256:
                raise BundleError(
                    f"{name} in {path} does not have the SHA-256 of the manifest: it is damaged or was tampered with; "
                    "copy the bundle again from a source that you trust, or export again"
                )
    except OSError as error:
        raise BundleError(f"cannot read {error.filename or path}: {error.strerror}; check its permissions") from error
    return manifest, stamps


def _stamp_of(path: Path) -> Stamp:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.from_json(path.read_bytes())
    except BundleError as error:
        raise BundleError(f"{path.parent}: {error.facts}", error.remedy) from error
