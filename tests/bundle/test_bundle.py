"""Bundles are opened whole or refused."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from toy_bundle import rewrite_manifest

from samrt.bundle.folder import check_replaceable, open_bundle
from samrt.errors import BundleError, OutputError

pytest_plugins = ("toy_fixtures",)


def test_folder(own_bundle: Path) -> None:
    bundle = open_bundle(str(own_bundle))
    assert bundle.path == own_bundle
    assert bundle.manifest.geometry.encoder_side == 64
    assert bundle.path_of("encoder.onnx") == own_bundle / "encoder.onnx"


def test_path_of_knows_only_the_files_of_the_manifest(own_bundle: Path) -> None:
    (own_bundle / "note.txt").write_text("left alone")
    with pytest.raises(BundleError, match=r"no file 'note.txt'"):
        open_bundle(own_bundle).path_of("note.txt")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no bundle at .*make one with samrt_export\.export"):
        open_bundle(tmp_path / "absent")


def test_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no manifest.json"):
        open_bundle(tmp_path)


def test_checkpoint_in_place_of_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "sam.pth").write_bytes(b"weights")
    with pytest.raises(BundleError, match=r"sam.pth is a file, and a bundle is a folder; .*samrt_export\.export"):
        open_bundle(tmp_path / "sam.pth")


def test_zip_in_place_of_a_bundle(own_bundle: Path) -> None:
    path = own_bundle.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in own_bundle.iterdir():
            archive.write(file, file.name)
    with pytest.raises(BundleError, match=r"bundle.zip is a file, .*unpack a bundle's zip to a folder and name that"):
        open_bundle(path)


@pytest.mark.parametrize("name", ["encoder.onnx", "encoder.weights", "decoder.onnx"])
def test_missing_file(own_bundle: Path, name: str) -> None:
    (own_bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing.*copy the bundle again"):
        open_bundle(own_bundle)


@pytest.mark.parametrize("name", ["encoder.onnx", "encoder.weights", "decoder.onnx"])
def test_truncated_file(own_bundle: Path, name: str) -> None:
    size = (own_bundle / name).stat().st_size
    os.truncate(own_bundle / name, size - 1)
    with pytest.raises(BundleError, match=f"{name} in .* has {size - 1} bytes, the manifest says {size}"):
        open_bundle(own_bundle)


@pytest.mark.parametrize("name", ["encoder.onnx", "encoder.weights", "decoder.onnx"])
def test_tampered_file(own_bundle: Path, name: str) -> None:
    content = bytearray((own_bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (own_bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} in .* does not have the SHA-256.*trust"):
        open_bundle(own_bundle)


def test_giant_manifest(own_bundle: Path) -> None:
    (own_bundle / "manifest.json").write_bytes(b" " * (2 << 20))
    with pytest.raises(BundleError, match="larger than any manifest"):
        open_bundle(own_bundle)


def test_changed_manifest_with_right_hashes_is_another_bundle(own_bundle: Path) -> None:
    rewrite_manifest(own_bundle, variant="other")
    assert open_bundle(own_bundle).manifest.variant == "other"


def test_only_bundles_and_empty_folders_are_replaceable(own_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for replaceable in (own_bundle, tmp_path / "empty", tmp_path / "absent"):
        check_replaceable(replaceable)
    manifest = own_bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 3', '"format_version": 2'))
    check_replaceable(own_bundle)  # of another samrt
    (own_bundle / "sam.pth").touch()
    with pytest.raises(OutputError, match=r"holds other things than a bundle, such as .*; choose another name"):
        check_replaceable(own_bundle)
    (tmp_path / "empty" / "manifest.json").write_text("{}")
    with pytest.raises(OutputError, match="holds other things than a bundle"):
        check_replaceable(tmp_path / "empty")


@pytest.mark.parametrize("name", ["decoder.onnx", "encoder.weights"])
def test_a_file_with_a_bundles_name_that_samrt_did_not_write_stays(own_bundle: Path, name: str) -> None:
    size = (own_bundle / name).stat().st_size
    for content in (b"mine", b"m" * size):
        (own_bundle / name).write_bytes(content)
        with pytest.raises(OutputError, match=rf"{name} in .* is not the file of that name that samrt wrote"):
            check_replaceable(own_bundle)


def test_path_that_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    # Newer Pythons answer False for such a name, older ones raise.
    with pytest.raises(BundleError, match=r"no bundle at|File name too long"):
        open_bundle("x" * 300)

    def denied(*_: object, **__: object) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "is_dir", denied)
    with pytest.raises(BundleError, match="Permission denied; check the path"):
        open_bundle("closed/bundle")


def test_a_manifest_that_cannot_be_used_is_named(own_bundle: Path) -> None:
    manifest = own_bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 3', '"format_version": 2'))
    with pytest.raises(BundleError, match=r"bundle: the bundle has format version 2, .*; export the checkpoint again"):
        open_bundle(own_bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_and_a_device_in_place_of_a_bundle(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(BundleError, match="a bundle is a folder"):
            open_bundle(path)


@pytest.mark.parametrize("path", [None, 5, b"bundle", "a\0b", "\ud800"])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(BundleError, match=r"the bundle must be a path|no file can have the name"):
        open_bundle(path)
