"""Checkpoints of a few hundred bytes that would fill the memory or compute for ever."""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from pathlib import Path

import pytest
import torch

import samrt_export.pickle_check
from samrt.errors import BundleError
from samrt_export.checkpoint import read_checkpoint

_HEXES = b"c_codecs\nencode\n" * 30 + b"X\1\0\0\0a" + b"X\3\0\0\0hex\x86R" * 30


def _int(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little")


def _storage(count: int, key: str = "0") -> bytes:
    return b"(X\7\0\0\0storagectorch\nFloatStorage\n" + _text(key) + b"X\3\0\0\0cpu" + _int(count) + b"tQ"


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


def _text(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def _again(function: bytes, argument: bytes, times: int) -> bytes:
    """A list of the results of one function, called with one argument again and again."""
    return b"\x80\2" + function + b"q\0" + argument + b"q\1" + b"](" + b"h\0h\1R" * times + b"e."


_MANY = b"}(" + b"".join(_text(f"key{number}") + b"N" for number in range(1000)) + b"u"
_ORDERED = b"ccollections\nOrderedDict\n)R"
_REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
_FLAT = b"(" + b"K\0" * 2000 + b"tq\7"


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
        # A list of two lists of two lists, quoted as what is no function.
        (b"\x80\2]" + b"q\3]h\3ah\3a" * 40 + b")R.", "no function"),
        (b"\x80\2]" + b"q\3]h\3ah\3a" * 40 + b"q\4ctorch._utils\n_rebuild_sparse_tensor\nh\4K\0\x86R.", "again"),
        (_again(b"c_codecs\nencode\n", _text("a" * 10_000) + _text("latin1") + b"\x86", 100), "again and again .*enc"),
        (b"\x80\2" + _MANY + b"q\0(" + (_ORDERED + b"h\0b") * 1000 + b"t.", "again and again .*BUILD"),
        (_again(b"ctorch.nn.parameter\nParameter\n", _FLAT, 1000), "again and again .*Parameter"),
        # Numbers whose hashes are one, numbers in tuples, and a tuple that is hashed often.
        (b"\x80\2}(" + b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"N" for n in range(1, 10_002))
         + b"u.", "keys"),
        (b"\x80\2}(" + (b"G" + bytes(8) + b"K\0\x86N") * 4000 + b"u.", "keys"),
        (b"\x80\2" + _FLAT + b"}(" + b"h\7N" * 10 + b"u.", "keys .*tuple"),
        (b"\x80\2cbuiltins\nset\n](" + b"K\0" * 32_769 + b"e\x85R.", "keys"),
        # Tensors that Python would take apart, row by row.
        (b"\x80\2cbuiltins\nset\n" + _tensor(9) + b"\x85R.", "gives a tensor to"),
        (b"\x80\2ccollections\nOrderedDict\n]" + _tensor(9) + b"a\x85R.", "gives a tensor to"),
        (b"\x80\2ctorch\nSize\n" + _tensor(9) + b"R.", "not written out"),
        (b"\x80\2" + _ORDERED + _tensor(9) + b"b.", "gives a tensor to"),
        # Memory beyond what a storage has, by strides, by many storages, and by many tensors over one.
        (b"\x80\2" + _REBUILD + b"(" + _storage(1) + b"K\0K\2\x85" + _int(2**30) + b"\x85\x89" + _ORDERED + b"tR.",
         "claim"),
        (b"\x80\2" + _tensor(1) + b"(" + _storage(1) + b"K\0" + _int(2**30) + b"\x85K\1\x85tb.", "claim"),
        (b"\x80\2" + _tensor(1) + _storage(1) + _int(2**30) + b"\x86b.", "changes a tensor"),
        (b"\x80\2(" + b"".join(_storage(900, str(n)) for n in range(1, 99)) + b"t.", "claim"),
        (b"\x80\2(" + _tensor(20_000) * 99 + b"t.", "claim"),
        (b"\x80\2" + _tensor(900) + b"q\0](" + b"ctorch._utils\n_rebuild_sparse_tensor\nNh\0h\0K\1\x87\x86R" * 99
         + b"e.", "claim"),
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


def test_refuses_pickles_that_take_long_to_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samrt_export.pickle_check, "_MOST_STEPS", 900)
    with pytest.raises(BundleError, match=r"more than 9\d\d steps"):
        read_checkpoint(_write(tmp_path / "bomb.pth", b"\x80\2(" + b"N" * 1000 + b"t."))


def test_looks_at_every_pickle_of_an_archive(tmp_path: Path) -> None:
    path = _write(tmp_path / "bomb.pth", b"\x80\2}.")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/DATA.pkl", _nested(40))
    with pytest.raises(BundleError, match="was not read"):
        read_checkpoint(path)


def test_a_storage_is_no_larger_than_its_record(tmp_path: Path) -> None:
    """torch maps the file, and would take what lies behind the record for numbers."""
    path = _write(tmp_path / "model.pth", b"\x80\2}X\1\0\0\0a" + _REBUILD + b"(" + _storage(2) + b"tRs.")
    with pytest.raises(BundleError, match="2 numbers of 4 bytes lies in a record of 4 bytes"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("place", "pickled", "what"),
    [
        # torch would give a tensor of whatever the memory held before.
        (4, b"\x80\2].", "numbers are not in the file"),
        (4, b"\x80\2]" + b"K\0a.", "name is no text"),
        # torch would quote it: a list of two lists of two lists.
        (1, b"\x80\2]" + b"q\3]h\3ah\3a" * 40 + b".", "does not begin as a checkpoint"),
    ],
)
def test_old_checkpoints_have_what_torch_takes_for_granted(
    tmp_path: Path, place: int, pickled: bytes, what: str
) -> None:
    path = tmp_path / "model.pth"
    torch.save({"mask_decoder.a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    read_checkpoint(path)
    with path.open("rb") as file:
        for _ in range(place):
            list(pickletools.genops(file))
        start = file.tell()
        list(pickletools.genops(file))
        end = file.tell()
    whole = path.read_bytes()
    path.write_bytes(whole[:start] + pickled + whole[end:])
    with pytest.raises(BundleError, match=what):
        read_checkpoint(path)


@pytest.mark.parametrize("as_zip", [True, False])
def test_takes_what_training_scripts_save(tmp_path: Path, as_zip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Less than there are tensors: the empty dictionary that each of them has is no key.
    monkeypatch.setattr(samrt_export.pickle_check, "_MOST_KEYS", 8)
    # Less than the log has: the numbers of its lines follow each other, and the file is larger than the log.
    monkeypatch.setattr(samrt_export.pickle_check, "_MOST_SMALL_KEYS", 20)
    monkeypatch.setattr(samrt_export.pickle_check, "_MOST_STEPS", 100)
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    content = {
        "state_dict": {"mask_decoder.weight": weight, "mask_decoder.half": torch.ones(20_000, dtype=torch.half)[::2]},
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "raw": bytearray(b"abc"),
        "log": {line: (line, 0.5) for line in range(100)},
        "sizes": [torch.Size([5, 6])] * 4,
        "bytes": b"\xff",
        ("epoch", (1, 2)): {1, 2},
    }
    torch.save(content, tmp_path / "whole.pth", _use_new_zipfile_serialization=as_zip)
    assert set(read_checkpoint(tmp_path / "whole.pth").state) == {"mask_decoder.weight", "mask_decoder.half"}
