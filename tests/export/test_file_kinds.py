"""Each kind of file that is taken for a checkpoint has its own message; the kind is known by the content."""

from __future__ import annotations

import io
import json
import re
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from samrt.errors import BundleError
from samrt_export.checkpoint import read_checkpoint


def in_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return buffer.getvalue()


def in_zip(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"x")
    return buffer.getvalue()


def an_onnx_graph() -> bytes:
    import onnx

    return onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])).SerializeToString()


def a_safetensors_file(metadata: dict[str, str], **tensors: torch.Tensor) -> bytes:
    """As the format's description has it; the package is not needed to write."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().view(torch.uint8).numpy().tobytes()
        kind = {torch.float32: "F32", torch.bfloat16: "BF16"}[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


WEIGHTS = {"image_encoder.a": torch.randn(3, 2), "image_encoder.b": torch.randn(4).bfloat16()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (in_tar(), "a tar archive: unpack it"),
        (in_zip("sam/sam_vit_b.pth"), "holds 'sam_vit_b.pth': unpack it"),
        (in_zip("arr_0.npy"), "not one that torch.save wrote"),
        (an_onnx_graph(), "an ONNX graph: give the checkpoint"),
        (b'{"metadata": {"total_size": 9}, "weight_map": {"a": "b"}}', "the index of a checkpoint in several files"),
        (b'\xef\xbb\xbf{"error": "not found"}', "JSON text"),
        (b"<?xml version='1.0'?><Error/>", "a web page"),
        (b"BZh91AY", "bzip2"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
        (b"GGUF" + bytes(99), "a GGUF file"),
        (b"\x93NUMPY\x01\x00", "a numpy array"),
    ],
)
def test_each_kind_of_file_has_its_message(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=re.escape(message)):
        read_checkpoint(path)


def test_safetensors_are_read_whatever_the_name(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "model.pth"
    path.write_bytes(a_safetensors_file({"format": "pt"}, **WEIGHTS))
    state = read_checkpoint(path).state
    assert list(state) == list(WEIGHTS)
    for name, tensor in WEIGHTS.items():
        assert torch.equal(state[name], tensor.float())


@pytest.mark.parametrize("cut", [10, 60, 1])
def test_truncated_safetensors_are_refused(tmp_path: Path, cut: int) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    whole = a_safetensors_file({}, **WEIGHTS)
    path.write_bytes(whole[: cut if cut > 1 else -1])
    with pytest.raises(BundleError, match=r"truncated or damaged .*; download or copy it again"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "a": {}}', "name twice"),
        ('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', "not as long as the file"),
        ('{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 8]},'
         '"b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', "not its own"),
        ('{"a": {"dtype": "F32", "shape": [2147483648, 2147483648, 4], "data_offsets": [0, 8]}}', "not its own"),
        ('{"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}', "whole numbers"),
        ('{"a": {"dtype": "F32", "shape": 2}}', "damaged"),
        ('{"a": ' + "[" * 100_000, "damaged"),
        ("{" + " " * (1 << 22) + "}", "its header claims"),
    ],
)  # fmt: skip
def test_safetensors_hold_what_their_header_says(tmp_path: Path, header: str, message: str) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(8))
    with pytest.raises(BundleError, match=message):
        read_checkpoint(path)


def test_safetensors_of_another_framework_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(a_safetensors_file({"format": "flax"}, **WEIGHTS))
    with pytest.raises(BundleError, match="another framework \\('flax'\\)"):
        read_checkpoint(path)


def test_safetensors_without_the_package_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    path = tmp_path / "model.safetensors"
    path.write_bytes(a_safetensors_file({}, **WEIGHTS))
    with pytest.raises(BundleError, match="pip install safetensors"):
        read_checkpoint(path)
