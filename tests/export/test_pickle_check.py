"""Checkpoints of a few hundred bytes that would fill the memory or compute for ever."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from samrt.errors import BundleError
from samrt_export.checkpoint import read_checkpoint

_HEXES = b"c_codecs\nencode\n" * 30 + b"X\1\0\0\0a" + b"X\3\0\0\0hex\x86R" * 30


def _int(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little")


def _storage(count: int) -> bytes:
    return b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpu" + _int(count) + b"tQ"


def _tensor(*shape: int) -> bytes:
    sizes = b"(" + b"".join(map(_int, shape)) + b"t"
    strides = b"(" + b"K\0" * len(shape) + b"t"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + _storage(1)
        + b"K\0"
        + sizes
        + strides
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def _write(path: Path, content: bytes, as_zip: bool = True) -> Path:
    if not as_zip:
        parts = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {"little_endian": True})
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in parts) + content)
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", b"\0\0\0\0")
    return path


def _nested(levels: int) -> bytes:
    """A dictionary whose key is a tuple of 2 ** levels numbers, each level twice the one before."""
    return b"\x80\2}K\1" + b"".join(b"q%c\x68%c\x86" % (level, level) for level in range(levels)) + b"K\0s."


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x80\2cbuiltins\nbytearray\n" + _int(2**30) + b"\x85R.", "bytearray"),
        (b"\x80\2c__builtin__\nbytearray\n" + _int(2**30) + b"\x85R.", "bytearray"),
        (b"\x80\2cbuiltins\nbytearray\nctorch\nSize\n(" + _int(2**30) + b"t\x85RR.", "bytearray"),
        (b"\x80\2" + _HEXES + b".", "latin1"),
        (_nested(40), "tuple"),
        (b"\x80\2}X\1\0\0\0a" + _tensor(2**20, 2**20) + b"s.", "claim"),
        (b"\x80\2}X\1\0\0\0a" + _storage(2**30) + b"s.", "claim"),
        (b"\x80\2ctorch\nFloatTensor\n" + _int(2**30) + b"\x85R.", "FloatTensor"),
        (b"\x80\2ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\nbytearray\nctorch\nTensor\n"
         + _int(2**30) + b"\x85}tR.", "bytearray"),
    ],
)  # fmt: skip
def test_refuses_bombs_before_torch_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, what: str, as_zip: bool
) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("torch read it")

    monkeypatch.setattr(torch, "load", read)
    with pytest.raises(BundleError, match=rf"was not read: .*{what}"):
        read_checkpoint(_write(tmp_path / "bomb.pth", content, as_zip))


def test_looks_at_every_pickle_of_an_archive(tmp_path: Path) -> None:
    path = _write(tmp_path / "bomb.pth", b"\x80\2}.")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/DATA.pkl", _nested(40))
    with pytest.raises(BundleError, match="was not read"):
        read_checkpoint(path)


@pytest.mark.parametrize("as_zip", [True, False])
def test_takes_what_training_scripts_save(tmp_path: Path, as_zip: bool) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    content = {
        "state_dict": {"mask_decoder.weight": weight, "mask_decoder.half": torch.ones(2, dtype=torch.half)[::2]},
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "raw": bytearray(b"abc"),
        "bytes": b"\xff",
        ("epoch", (1, 2)): {1, 2},
    }
    torch.save(content, tmp_path / "whole.pth", _use_new_zipfile_serialization=as_zip)
    assert set(read_checkpoint(tmp_path / "whole.pth").state) == {"mask_decoder.weight", "mask_decoder.half"}
