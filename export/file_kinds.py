"""What a file is by its first bytes, whatever its name: a checkpoint, or something that is taken for one."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import BinaryIO

from samrt.errors import BundleError

EXPECTED = (
    "expected a PyTorch checkpoint (.pth): a dictionary of tensors, as torch.save(model.state_dict(), path) writes it; "
    "or a safetensors file"
)

ZIP, PICKLE, SAFETENSORS = "zip", "pickle", "safetensors"

_FILES = {
    b"PK\x03\x04": ZIP,
    b"\x80": PICKLE,  # torch.save before 1.6
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"BZh": "a bzip2 archive: unpack it first",
    b"\xfd7zXZ": "an xz archive: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive: unpack it first",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: fetch it with `git lfs pull`",
    b"<": "a web page, such as a failed download leaves behind: download the checkpoint again",
    b"\x89HDF": "an HDF5 file, as Keras writes it: convert its weights to a PyTorch state dict",
    b"GGUF": "a GGUF file, whose weights are quantised: use the PyTorch checkpoint that it was made from",
    b"\x93NUMPY": "a numpy array: save the model's state dict",
    b"ftrt": "a TensorRT engine: export the checkpoint that it was built from",
}
_ONNX = re.compile(rb"\x08[\x03-\x10](\x12|\x1a|\x3a|\x42)")
_INDEX = re.compile(rb'"weight_map"\s*:')
_SPREAD = re.compile(rb"ctorch\.distributed\.(_?tensor|_shard|device_mesh)\b")
# The pickle of a checkpoint has names and shapes only; the numbers lie beside it.
_LONGEST_PICKLE = 1 << 26
_HEAD = 1024
# Bytes of a record's header in a zip archive, before its name.
_LOCAL = 30
# The format's own bound.
_LONGEST_HEADER = 100_000_000
# The two places where a tar archive says that it is one, in every variant.
_TAR = slice(257, 262)


def kind_of(path: Path) -> str:
    """`ZIP`, `PICKLE` or `SAFETENSORS`; else what the file is instead and what to do, or nothing if that is unknown."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[_TAR] == b"ustar":
        return "a tar archive: unpack it first (torch.save of 2016 wrote such files: load one with torch, save it anew)"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER:
        return SAFETENSORS
    if _ONNX.match(head):
        return "an ONNX graph: give the checkpoint that it was exported from"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{"):
        return _kind_of_json(text)
    return next((kind for start, kind in _FILES.items() if text.startswith(start)), "")


def check_zip(path: Path) -> None:
    """Refuse an archive that `torch.save` did not write.

    Raises:
        BundleError: it is of something else, or compressed.
        Exception: of any kind, where it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        _check_entries(entries, path)
        spread = any(_is_spread(path, entry) for entry in entries if entry.filename.endswith("/data.pkl"))
    if spread:
        raise BundleError(
            f"{path} holds tensors that are spread over several processes (DTensor); gather them before saving: "
            "torch.distributed.checkpoint.state_dict.get_model_state_dict with full_state_dict=True"
        )


def sizes_of_records(path: Path, archive: zipfile.ZipFile) -> dict[str, set[int]]:
    """Bytes of the records that storages are made of, by key, in small letters as torch does not tell them apart.

    Raises:
        Exception: of any kind, where a record does not begin as an archive's directory says.
    """
    sizes: dict[str, set[int]] = {}
    with path.open("rb") as file:
        for entry in archive.infolist():
            _check_local(file, archive, entry)
    for entry in archive.infolist():
        key = entry.filename.casefold().partition("/data/")[2]
        sizes.setdefault(key, set()).add(entry.file_size)
    return sizes


def read_record(path: Path, entry: zipfile.ZipInfo, most: int = -1) -> bytes:
    """Of a record that is not compressed, so many bytes, or all: without its checksum, which torch can leave out."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL)
        file.seek(sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28)), os.SEEK_CUR)
        return file.read(entry.file_size if most < 0 else min(most, entry.file_size))


def _check_local(file: BinaryIO, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Where a record begins depends on the lengths of what stands before it, which torch takes as they are."""
    archive.open(entry).close()  # compares the names
    file.seek(entry.header_offset)
    header = file.read(_LOCAL)
    file.seek(int.from_bytes(header[26:28], "little"), os.SEEK_CUR)
    extra = file.read(int.from_bytes(header[28:30], "little"))
    while extra:
        end = 4 + int.from_bytes(extra[2:4], "little")
        if end > len(extra):
            raise zipfile.BadZipFile(f"the header of {entry.filename[:80]!r} is damaged")
        extra = extra[end:]


def _check_entries(entries: list[zipfile.ZipInfo], path: Path) -> None:
    names = {entry.filename.rpartition("/")[2] for entry in entries}
    if "constants.pkl" in names:
        raise BundleError(f"{path} is a TorchScript program; {EXPECTED}")
    if "data.pkl" not in names:
        inside = next((name for name in sorted(names) if name.endswith((".pth", ".pt", ".safetensors", ".ckpt"))), None)
        what = f"and holds {inside[:80]!r}: unpack it first" if inside else "but not one that torch.save wrote"
        raise BundleError(f"{path} is a zip archive, {what}; {EXPECTED}")
    # torch.save never compresses; a small file that unpacks to a huge one is an attack on this machine's memory.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise BundleError(f"{path} is compressed, which torch.save never does; {EXPECTED}")
    # Entries that lie over one another would be read once for each of them.
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise BundleError(
            f"the files in {path} claim more bytes than it has: it is damaged or made to mislead; download or copy it "
            "again"
        )


def _is_spread(path: Path, entry: zipfile.ZipInfo) -> bool:
    """Whether a pickle names tensors of which each process has a part; torch makes none without the processes."""
    return _SPREAD.search(read_record(path, entry, _LONGEST_PICKLE)) is not None


def _kind_of_json(head: bytes) -> str:
    if _INDEX.search(head) or b'"total_size"' in head:
        return (
            "the index of a checkpoint in several files: load them with the library that wrote them, and save one "
            "state dict"
        )
    return "JSON text, such as a configuration or a server's error: give the file of the weights"
