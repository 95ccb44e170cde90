"""Bundles on disk: a folder or a zip, opened only after every file in it was found whole."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
import zipfile
from pathlib import Path

from samrt.bundle.manifest import MANIFEST_NAME, Manifest
from samrt.engines.sets import is_engines_folder
from samrt.errors import BundleError, OutputError, SamrtError
from samrt.files import replacing_file, sha256_of

_MANIFEST_LIMIT = 1 << 20
_COPY_SIZE = 1 << 20
# What the temporary folder can be at fault for; every other OSError while unpacking comes from the zip.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EACCES)


class Bundle:
    """A bundle whose files all have the size and the hash that its manifest declares.

    Attributes:
        path: what was opened, a folder or a zip.
        manifest: the content of manifest.json.
    """

    def __init__(self, path: Path, folder: Path, manifest: Manifest, *, temporary: bool) -> None:
        self.path = path
        self.manifest = manifest
        self._folder = folder
        # Runs at the latest when the interpreter ends.
        self._cleanup = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True) if temporary else None

    @property
    def folder(self) -> Path:
        """Where the files lie; of a zip, the temporary folder that it was unpacked to."""
        return self._folder

    def path_of(self, name: str) -> Path:
        """Where the file `name` of the manifest lies; for a zip, valid until the bundle is closed.

        Raises:
            BundleError: the manifest has no such file.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} has no file {name!r}; it has {', '.join(self.manifest.files)}")
        return self._folder / name

    def close(self) -> None:
        """Delete what was unpacked from a zip. May be called again."""
        if self._cleanup is not None:
            self._cleanup()


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open a bundle and compare every file with the size and SHA-256 in its manifest, before anything parses it.

    A zip is unpacked to a temporary folder that lives as long as the `Bundle`. Files beside those of the manifest are
    left alone in a folder and refused in a zip.

    Raises:
        BundleError: there is no bundle at `path`, or one of its files is missing, truncated or changed.
        OutputError: a zip could not be unpacked to the temporary folder.
    """
    path = Path(path)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from error
    if is_folder:
        return Bundle(path, path, _verified_manifest(path, path), temporary=False)
    if not exists:
        raise BundleError(f"there is no bundle at {path}; check the path, or make one with `samrt export`")
    if not zipfile.is_zipfile(path):
        raise BundleError(
            f"{path} is neither a folder nor a whole zip; if it is a bundle's zip, copy it again, "
            "if it is a checkpoint, turn it into a bundle with `samrt export`"
        )
    folder = Path(tempfile.mkdtemp(prefix="samrt-"))
    try:
        _unpack(path, folder)
        return Bundle(path, folder, _verified_manifest(folder, path), temporary=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def check_replaceable(folder: str | os.PathLike[str]) -> None:
    """Find out before an export whether a bundle may take the place of `folder`.

    It may if nothing is there, if the folder is empty, or if it holds a manifest, the files in it, engines that
    `samrt build` made, and nothing else. What is there and is not a folder is `replacing_folder`'s to judge.

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
            own = {MANIFEST_NAME, *Manifest.from_json(manifest.read_bytes()).files}
            found = [
                path for path in found if not (path.name in own and path.is_file()) and not is_engines_folder(path)
            ]
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


def write_zip(folder: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Pack the bundle in `folder` into the zip `target`; only the files of the manifest are taken.

    The same bundle always gives the same bytes. Nothing is compressed: weights hardly shrink.

    Raises:
        BundleError: `folder` is not a whole bundle.
        OutputError: `target` cannot be written.
    """
    bundle = open_bundle(folder)
    with replacing_file(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in (MANIFEST_NAME, *bundle.manifest.files):
            source = Path(folder) / name
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            # zipfile must know the size beforehand to leave room for one above 4 GiB.
            entry.file_size = source.stat().st_size
            with source.open("rb") as reader, archive.open(entry, "w") as writer:
                shutil.copyfileobj(reader, writer, _COPY_SIZE)


def _verified_manifest(folder: Path, path: Path) -> Manifest:
    """The manifest in `folder`, its files checked; `path` is how the user knows the bundle."""
    manifest_path = folder / MANIFEST_NAME
    try:
        if not manifest_path.is_file():
            raise BundleError(f"{path} has no {MANIFEST_NAME}, so it is not a bundle; make one with `samrt export`")
        if manifest_path.stat().st_size > _MANIFEST_LIMIT:
            raise BundleError(f"{MANIFEST_NAME} in {path} is larger than any manifest; export the checkpoint again")
        manifest = Manifest.from_json(manifest_path.read_bytes())
        for name, entry in manifest.files.items():
            file = folder / name
            if not file.is_file():
                raise BundleError(f"{name} is missing in {path}; copy the bundle again, or export again")
            size = file.stat().st_size
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
    return manifest


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            _unpack_entries(archive, path, folder)
    except SamrtError:
        raise
    except Exception as error:
        # For a damaged or hostile zip, zipfile raises anything from BadZipFile to RuntimeError and OSError.
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise OutputError(
                f"cannot unpack {path} to {folder}: {error.strerror}; make room there, or set TMPDIR to another folder"
            ) from error
        raise BundleError(
            f"{path} is a damaged zip and cannot be unpacked ({error}); copy it again, or pack the bundle again with "
            "`samrt export`"
        ) from error


def _unpack_entries(archive: zipfile.ZipFile, path: Path, folder: Path) -> None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        raise BundleError(f"{path} holds two files of one name, so samrt did not pack it; export the checkpoint again")
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleError(
                f"{entry.filename!r} in {path} is neither stored nor deflated; pack it again with `samrt export`"
            )
    by_name = dict(zip(names, entries, strict=True))
    if MANIFEST_NAME not in by_name:
        raise BundleError(
            f"{path} has no {MANIFEST_NAME} at its top, so it is not a bundle; "
            "pack the files themselves, not the folder around them"
        )
    if by_name[MANIFEST_NAME].file_size > _MANIFEST_LIMIT:
        raise BundleError(f"{MANIFEST_NAME} in {path} is larger than any manifest; export the checkpoint again")
    manifest = Manifest.from_json(archive.read(MANIFEST_NAME))
    # The manifest allows plain names only, so what it lists cannot leave the folder; nothing else is unpacked.
    for name in names:
        if name != MANIFEST_NAME and name not in manifest.files:
            raise BundleError(
                f"{path} holds {name!r}, which is not in its manifest; pack the manifest's files alone, without "
                "engines, or export the checkpoint again to a .zip"
            )
    for name, declared in manifest.files.items():
        if name not in by_name:
            raise BundleError(f"{name} is missing in {path}; copy the bundle again, or export again")
        # zipfile never unpacks more than this size, so the manifest bounds what lands on the disk.
        if by_name[name].file_size != declared.bytes:
            raise BundleError(
                f"{name} in {path} has {by_name[name].file_size} bytes, the manifest says {declared.bytes}; "
                "copy the bundle again, or export again"
            )
    for name in (MANIFEST_NAME, *manifest.files):
        with archive.open(name) as reader, (folder / name).open("xb") as writer:
            shutil.copyfileobj(reader, writer, _COPY_SIZE)
