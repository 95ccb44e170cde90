"""Checkpoints are read, or refused with a message that helps; no code in them runs."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import zipfile
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor, nn

from samrt.errors import BundleError
from samrt_export import checkpoint
from samrt_export.checkpoint import read_checkpoint


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "layer.weight": torch.randn(6, 5, generator=generator),
        "layer.bias": torch.randn(6, generator=generator),
        "layer.count": torch.tensor(3),
    }


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize("as_zip", [True, False])
def test_reads_a_state_dict(tmp_path: Path, as_zip: bool) -> None:
    path = tmp_path / "model.pth"
    torch.save(weights(), path, _use_new_zipfile_serialization=as_zip)
    read = read_checkpoint(str(path))
    assert_same(read.state, weights())
    assert read.path == path
    assert read.bytes == path.stat().st_size
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_reads_what_torch_wrote_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights(), tmp_path / "model.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(read_checkpoint(tmp_path / "model.pth").state, weights())


def test_refuses_a_file_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    torch.save(weights(), path)
    walk = checkpoint._check_bounds

    def walk_and_replace(path: Path, kind: str) -> None:
        walk(path, kind)
        torch.save({"layer.weight": torch.zeros(2)}, path)

    monkeypatch.setattr(checkpoint, "_check_bounds", walk_and_replace)
    with pytest.raises(BundleError, match=r"model\.pth was replaced or changed while it was read"):
        read_checkpoint(path)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict"])
def test_unwraps_training_checkpoints(tmp_path: Path, wrapper: str) -> None:
    path = tmp_path / "training.pth"
    torch.save({wrapper: weights(), "epoch": 7, "optimizer": {"state": {}, "lr": 1e-4}}, path)
    assert_same(read_checkpoint(path).state, weights())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_strips_a_prefix_that_all_names_share(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "parallel.pth"
    torch.save({prefix + name: tensor for name, tensor in weights().items()}, path)
    assert_same(read_checkpoint(path).state, weights())


def test_keeps_a_prefix_that_only_some_names_have(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    state = {"module.weight": torch.ones(2), "weight": torch.zeros(2)}
    torch.save(state, path)
    assert_same(read_checkpoint(path).state, state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_converts_other_float_types_to_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "model.pth"
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in weights().items()}
    torch.save(state, path)
    assert_same(read_checkpoint(path).state, {n: t.float() if t.is_floating_point() else t for n, t in state.items()})


def test_parameters_come_without_gradients_and_contiguous(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    parameter = nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    torch.save({"weight": parameter}, path)
    weight = read_checkpoint(path).state["weight"]
    assert torch.equal(weight, parameter)
    assert weight.is_contiguous()
    assert not weight.requires_grad


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "is empty"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(200), "a JPEG image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "a PNG image"),
        (b"\r\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"\x1f\x8b\x08" + bytes(200), "unpack it"),
        (b"some text", "is not a checkpoint; expected a PyTorch checkpoint"),
    ],
)
def test_refuses_files_of_other_kinds(tmp_path: Path, content: bytes, hint: str) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=re.escape(hint)) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


def test_refuses_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(BundleError, match="is a folder"):
        read_checkpoint(tmp_path)


def test_refuses_what_is_not_a_regular_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.pth"
    os.mkfifo(pipe)
    with pytest.raises(BundleError, match="not a regular file"):
        read_checkpoint(pipe)


def test_reports_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    torch.save(weights(), path)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(BundleError, match=r"model\.pth: Permission denied"):
        read_checkpoint(path)


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("missing", [8, 0.1, 0.5, 0.99])
def test_refuses_truncated_files(tmp_path: Path, as_zip: bool, missing: float) -> None:
    path = tmp_path / "model.pth"
    torch.save({"weight": torch.ones(1000)}, path, _use_new_zipfile_serialization=as_zip)
    whole = path.read_bytes()
    cut = int(missing) if missing >= 1 else int(missing * len(whole))
    path.write_bytes(whole[: len(whole) - cut])
    with pytest.raises(BundleError, match=r"download or copy it again|expected a PyTorch checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("as_zip", [True, False])
def test_damaged_files_raise_nothing_else(tmp_path: Path, as_zip: bool) -> None:
    path = tmp_path / "model.pth"
    torch.save({"model": {"weight": torch.ones(3)}}, path, _use_new_zipfile_serialization=as_zip)
    whole = path.read_bytes()
    random = Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(random.choice((1, 8))):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except BundleError:
            refused += 1
    assert refused > 50


def test_refuses_other_zip_archives(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.txt", "hello")
    with pytest.raises(BundleError, match=r"not one that torch\.save wrote"):
        read_checkpoint(path)


def test_refuses_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/model.py"):
            archive.writestr(f"script/{name}", b"")
    with pytest.raises(BundleError, match="TorchScript"):
        read_checkpoint(path)


def test_refuses_compressed_archives(tmp_path: Path) -> None:
    plain, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    torch.save({"weight": torch.zeros(100_000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(BundleError, match=r"is compressed, which torch\.save never does"):
        read_checkpoint(bomb)


@pytest.mark.parametrize("field", [26, 28])
def test_refuses_archives_whose_records_begin_elsewhere(tmp_path: Path, field: int) -> None:
    """torch believes the lengths in a record's own header, and would take its numbers from another place."""
    path = tmp_path / "model.pth"
    torch.save({"weight": torch.arange(100.0)}, path)
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("model/data/0").header_offset + field
    whole = bytearray(path.read_bytes())
    whole[place] -= 4
    path.write_bytes(whole)
    with pytest.raises(BundleError, match="truncated or damaged"):
        read_checkpoint(path)


def test_refuses_archives_with_one_record_many_times(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"weight": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.filelist += [archive.getinfo("model/data/0")] * 3
        archive.writestr("more", b"")  # so that the directory is written again
    with pytest.raises(BundleError, match="claim more bytes than it has"):
        read_checkpoint(path)


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("as_zip", [True, False])
def test_runs_no_code_from_a_checkpoint(tmp_path: Path, as_zip: bool) -> None:
    path, marker = tmp_path / "hostile.pth", tmp_path / "ran"
    torch.save({"model": weights(), "extra": Hostile(marker)}, path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(BundleError, match="samrt never runs code from a checkpoint") as caught:
        read_checkpoint(path)
    assert "mkdir" in str(caught.value)
    assert not marker.exists()
    # The file is a real attack: an ordinary reader does run it.
    torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_runs_no_code_from_a_bare_pickle(tmp_path: Path, protocol: int) -> None:
    path, marker = tmp_path / "hostile.pth", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Hostile(marker), protocol))
    with pytest.raises(BundleError, match="expected a PyTorch checkpoint"):
        read_checkpoint(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()


def test_refuses_a_pickled_module(tmp_path: Path) -> None:
    path = tmp_path / "module.pth"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(BundleError, match=r"asks for torch\.nn\.modules\.linear\.Linear.*save the state dict"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_refuses_quantised_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"weight": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)}, path)
    with pytest.raises(BundleError, match=r"weight in .* is quantised \(torch\.qint8\)"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ({"epoch": 3, "loss": 0.5}, "holds no tensors, but epoch, loss"),
        ({}, "holds no tensors"),
        ({"model": {"name": "vit_b"}}, r"holds no tensors, but model\.name"),
        ([torch.ones(2)], "one object of type list"),
        (torch.ones(2), "one object of type Tensor"),
        (
            {"image_encoder.weight": torch.ones(2), "image_encoder.depth": 3},
            r"image_encoder\.depth, of type int, among",
        ),
        ({"weight": torch.ones(4).to_sparse()}, "weight in .* is stored sparsely"),
        ({"weight": torch.ones(4, device="meta")}, "weight in .* is without values here"),
        (
            {"weight": torch.zeros(0).as_strided((0, 2**41), (1, 0))},
            r"weight in .* has a shape that no weight has, of 2 axes",
        ),
        ({"weight": torch.zeros((1,) * 40)}, r"weight in .* has a shape that no weight has, of 40 axes"),
        ({"weight": torch.ones(4, dtype=torch.complex64)}, "weight in .* is of complex numbers"),
        ({"weight": torch.ones(4, dtype=torch.uint16)}, "weight in .* is of an unusual type"),
        ({"weight": torch.ones(1).expand(1_000_000)}, r"claim 1,000,000 numbers and more, but the file has \d,\d+"),
        ({"a": torch.ones(2), "weight": torch.tensor([1.0, float("nan")])}, "weight in .* holds NaN or infinity"),
        ({"weight": torch.tensor([float("-inf")], dtype=torch.float16)}, "weight in .* holds NaN or infinity"),
        ({"weight": torch.tensor([1e300], dtype=torch.float64)}, "weight in .* holds NaN or infinity"),
    ],
)
def test_refuses_content_that_is_not_weights(tmp_path: Path, content: object, hint: str) -> None:
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(BundleError, match=hint):
        read_checkpoint(path)
