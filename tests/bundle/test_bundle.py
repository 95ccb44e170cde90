"""Bundles are opened whole or refused, as folders and as zips."""

from __future__ import annotations

import errno
import gc
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_bundle import rewrite_manifest

from samrt.bundle.folder import Bundle, check_replaceable, open_bundle, write_zip
from samrt.errors import BundleError, OutputError

pytest_plugins = ("toy_fixtures",)


@pytest.fixture
def zipped(own_bundle: Path) -> Path:
    target = own_bundle.with_suffix(".zip")
    write_zip(own_bundle, target)
    return target


def _rezip(source: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of a zip with its content, name to bytes, changed."""
    with zipfile.ZipFile(source) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    change(content)
    target = source.with_name("changed.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return target


def test_folder(own_bundle: Path) -> None:
    bundle = open_bundle(str(own_bundle))
    assert bundle.path == own_bundle
    assert bundle.manifest.image_size == 64
    assert bundle.path_of("encoder.onnx") == own_bundle / "encoder.onnx"
    bundle.close()
    assert own_bundle.is_dir()


def test_path_of_knows_only_the_files_of_the_manifest(own_bundle: Path) -> None:
    (own_bundle / "note.txt").write_text("left alone")
    with pytest.raises(BundleError, match=r"no file 'note.txt'"):
        open_bundle(own_bundle).path_of("note.txt")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no bundle at .*samrt export"):
        open_bundle(tmp_path / "absent")


def test_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no manifest.json"):
        open_bundle(tmp_path)


def test_checkpoint_in_place_of_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "sam.pth").write_bytes(b"weights")
    with pytest.raises(BundleError, match=r"sam.pth is neither a folder nor a whole zip.*samrt export"):
        open_bundle(tmp_path / "sam.pth")


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


def test_zip_holds_the_same_bundle_and_is_cleaned_up(own_bundle: Path, zipped: Path) -> None:
    (own_bundle / "note.txt").write_text("not packed")
    bundle = open_bundle(zipped)
    unpacked = bundle.path_of("encoder.onnx").parent
    assert {path.name for path in unpacked.iterdir()} == {"manifest.json", *bundle.manifest.files}
    for name in bundle.manifest.files:
        assert bundle.path_of(name).read_bytes() == (own_bundle / name).read_bytes()
    bundle.close()
    bundle.close()
    assert not unpacked.exists()


def test_zip_is_cleaned_up_with_its_bundle(zipped: Path) -> None:
    bundle: Bundle | None = open_bundle(zipped)
    assert bundle is not None
    unpacked = bundle.path_of("encoder.onnx").parent
    assert unpacked.is_dir()
    del bundle
    gc.collect()
    assert not unpacked.exists()


def test_zip_is_reproducible(own_bundle: Path, zipped: Path) -> None:
    os.utime(own_bundle / "encoder.onnx", (0, 0))
    write_zip(own_bundle, own_bundle.with_name("again.zip"))
    assert own_bundle.with_name("again.zip").read_bytes() == zipped.read_bytes()


def test_compressed_zip_is_read(own_bundle: Path) -> None:
    target = own_bundle.with_name("small.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in own_bundle.iterdir():
            archive.write(path, path.name)
    assert open_bundle(target).manifest == open_bundle(own_bundle).manifest


def test_damaged_bundle_is_not_packed(own_bundle: Path, tmp_path: Path) -> None:
    (own_bundle / "decoder.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"decoder.onnx"):
        write_zip(own_bundle, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def _drop(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(content: dict[str, bytes]) -> None:
        del content[name]

    return change


def _put(name: str, data: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(content: dict[str, bytes]) -> None:
        content[name] = data

    return change


def _escape(content: dict[str, bytes]) -> None:
    manifest = json.loads(content["manifest.json"])
    manifest["files"]["../evil"] = {"sha256": "0" * 64, "bytes": 4}
    content["manifest.json"] = json.dumps(manifest).encode()
    content["../evil"] = b"evil"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("manifest.json"), "no manifest.json at its top"),
        (_drop("encoder.weights"), "encoder.weights is missing"),
        (_put("decoder.onnx", b"short"), "decoder.onnx in .* has 5 bytes"),
        (_put("decoder.onnx", b"x" * (8 << 20)), f"decoder.onnx in .* has {8 << 20} bytes"),
        (_put("extra.txt", b"?"), "holds 'extra.txt', which is not in its manifest"),
        (_put("../evil", b"evil"), "holds '../evil', which is not in its manifest"),
        (_put("/evil", b"evil"), "not in its manifest"),
        (_escape, "plain names"),
        (_put("manifest.json", b" " * (2 << 20)), "larger than any manifest"),
    ],
)
def test_zip_with_wrong_content(
    zipped: Path, temporary: Path, change: Callable[[dict[str, bytes]], None], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        open_bundle(_rezip(zipped, change))
    assert list(temporary.iterdir()) == []
    assert not (temporary.parent / "evil").exists()


def test_zip_that_would_unpack_to_more_than_its_manifest_says(
    zipped: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = _rezip(zipped, _put("encoder.weights", b"0" * (8 << 20)))
    unpacked = []
    monkeypatch.setattr("shutil.copyfileobj", lambda *_: unpacked.append(1))
    with pytest.raises(BundleError, match=f"encoder.weights in .* has {8 << 20} bytes"):
        open_bundle(bomb)
    assert not unpacked


def test_zip_with_a_tampered_file(zipped: Path, temporary: Path) -> None:
    def flip(content: dict[str, bytes]) -> None:
        content["encoder.weights"] = bytes(b ^ 1 for b in content["encoder.weights"])

    with pytest.raises(BundleError, match=r"encoder.weights in .*changed.zip does not have the SHA-256"):
        open_bundle(_rezip(zipped, flip))
    assert list(temporary.iterdir()) == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_with_two_files_of_one_name(zipped: Path) -> None:
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr("decoder.onnx", b"second")
    with pytest.raises(BundleError, match="two files of one name"):
        open_bundle(zipped)


def test_truncated_zip(zipped: Path) -> None:
    zipped.write_bytes(zipped.read_bytes()[:-100])
    with pytest.raises(BundleError, match="neither a folder nor a whole zip"):
        open_bundle(zipped)


def test_zip_damaged_in_the_middle(zipped: Path, temporary: Path) -> None:
    content = bytearray(zipped.read_bytes())
    middle = content.index((zipped.with_suffix("") / "decoder.onnx").read_bytes())
    content[middle + 50] ^= 1
    zipped.write_bytes(content)
    with pytest.raises(BundleError, match="cannot be unpacked"):
        open_bundle(zipped)
    assert list(temporary.iterdir()) == []


def test_full_temporary_folder_is_reported(zipped: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OutputError, match="No space left on device; make room there, or set TMPDIR"):
        open_bundle(zipped)
    assert list(temporary.iterdir()) == []


def test_changed_manifest_with_right_hashes_is_another_bundle(own_bundle: Path) -> None:
    rewrite_manifest(own_bundle, variant="other")
    assert open_bundle(own_bundle).manifest.variant == "other"


def test_only_bundles_and_empty_folders_are_replaceable(own_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for replaceable in (own_bundle, tmp_path / "empty", tmp_path / "absent"):
        check_replaceable(replaceable)
    (own_bundle / "decoder.onnx").write_bytes(b"damaged, yet its own")
    check_replaceable(own_bundle)
    (own_bundle / "sam.pth").touch()
    with pytest.raises(OutputError, match=r"holds other things than a bundle, such as .*; choose another name"):
        check_replaceable(own_bundle)
    (tmp_path / "empty" / "manifest.json").write_text("{}")
    with pytest.raises(OutputError, match="holds other things than a bundle"):
        check_replaceable(tmp_path / "empty")


def test_path_that_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    # Newer Pythons answer False for such a name, older ones raise.
    with pytest.raises(BundleError, match=r"no bundle at|File name too long"):
        open_bundle("x" * 300)

    def denied(*_: object, **__: object) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "is_dir", denied)
    with pytest.raises(BundleError, match="Permission denied; check the path"):
        open_bundle("closed/bundle")


def test_zip_of_another_compression(own_bundle: Path) -> None:
    target = own_bundle.with_name("small.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_BZIP2) as archive:
        for path in own_bundle.iterdir():
            archive.write(path, path.name)
    with pytest.raises(BundleError, match="neither stored nor deflated"):
        open_bundle(target)


def test_unreadable_zip_is_not_called_a_full_disk(zipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr("shutil.copyfileobj", fail)
    with pytest.raises(BundleError, match="damaged zip"):
        open_bundle(zipped)
