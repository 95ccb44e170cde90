"""Checkpoints in torch's two formats and as safetensors, through `read_checkpoint`."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import pickle
import random
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz.mutations import mutate_bytes, mutate_json, mutate_zip, write_zip
from fuzz.pickles import mutate_steps, steps_of
from torch import Tensor

from samrt import SamrtError
from samrt_export.bookkeeping import ALLOWED
from samrt_export.checkpoint import Checkpoint, read_checkpoint

# The inputs are of 100 kB at most, and torch's first tensors take some memory of their own.
MEMORY = 256 << 20
_DTYPES = {
    **{"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64, "I64": torch.int64},
    **{"BOOL": torch.bool, "U8": torch.uint8, "F8_E4M3": torch.float8_e4m3fn, "I8": torch.int8, "I32": torch.int32},
}


def corpus(folder: Path) -> list[bytes]:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3, 4))
    model = OrderedDict(
        {
            "image_encoder.weight": weight,
            "image_encoder.half": torch.randn(6).half()[::2],
            "mask_decoder.count": torch.tensor(3),
            "mask_decoder.tied": weight.detach().T,
        }
    )
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    training = {
        "state_dict": model,
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": {
            "lr": np.float64(0.1),
            "args": argparse.Namespace(a=[1, (2, 3)]),
            7: {1, 2},
            (1, "a"): b"x",
        },
        "rng": torch.get_rng_state()[:16].clone(),
    }
    strange = {"model": model, "q": torch.ones(2, 2).to_sparse(), "c": torch.ones(2, dtype=torch.complex64)}
    contents = (dict(model), training, strange, {"a": torch.ones(1).expand(3), "b": torch.empty(0, 2)})
    files = [_saved(each, as_zip) for each in contents for as_zip in (True, False)]
    plain = {"mask_decoder.a": torch.randn(3, 2), "image_encoder.b": torch.ones(4).bfloat16(), "c": torch.zeros(0)}
    safe = safetensors_file(plain)
    return [*files, safe, safe, safe, *map(_bare, (b"\x80\2}.", b"\x80\2]q\3" + b"]h\3ah\3aq\3" * 60 + b")R.")), b""]


def _saved(content: Any, as_zip: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=as_zip)
    return file.getvalue()


def _bare(data: bytes) -> bytes:
    return write_zip([("archive/data.pkl", data), ("archive/version", b"3\n"), ("archive/data/0", bytes(16))])


def safetensors_file(tensors: Mapping[str, Tensor]) -> bytes:
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        kind = "F32" if tensor.dtype == torch.float32 else "BF16"
        header[name] = {"dtype": kind, "shape": [*tensor.shape], "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return len(text).to_bytes(8, "little") + text + data


def setup(folder: Path) -> Path:
    torch.set_num_threads(1)
    return folder / "model.pth"


def run(data: bytes, state: Path) -> str:
    state.write_bytes(data)
    try:
        checkpoint = read_checkpoint(state)
    except SamrtError as error:
        return type(error).__name__
    assert (checkpoint.sha256, checkpoint.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    written = _read_again(state, data)
    _check(checkpoint, list(_tensors(written, (), set())))
    return "taken"


def _check(checkpoint: Checkpoint, written: list[tuple[str, Tensor]]) -> None:
    """Each tensor is one that stands in the file under a name that ends as its own does."""
    assert checkpoint.state
    assert sum(t.numel() * t.element_size() for t in checkpoint.state.values()) <= 4 * checkpoint.bytes
    for name, tensor in checkpoint.state.items():
        assert tensor.is_contiguous() or not tensor.is_floating_point()
        assert tensor.dtype == torch.float32 or not tensor.is_floating_point()
        assert torch.isfinite(tensor).all()
        end = name.rpartition(".")[2]
        same = (each for key, each in written if key.endswith(end) and each.shape == tensor.shape)
        assert any(torch.equal(each.to(tensor.dtype), tensor) for each in same), name


def _read_again(path: Path, data: bytes) -> Any:
    if data[:2] == b"PK" or data[:1] == b"\x80":
        with warnings.catch_warnings(), torch.serialization.safe_globals(ALLOWED):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    length = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:length])
    found = {}
    for name in header.keys() - {"__metadata__"}:
        begin, end = header[name]["data_offsets"]
        raw = torch.frombuffer(bytearray(data[length + begin : length + end] or 1), dtype=torch.uint8)
        typed = raw[: end - begin].view(_DTYPES[header[name]["dtype"]])
        found[name] = typed.reshape(header[name]["shape"])
    return found


def _tensors(content: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield ".".join(path), content
    elif isinstance(content, Mapping) and len(path) < 9 and id(content) not in seen:
        seen.add(id(content))
        for key, value in content.items():
            yield from _tensors(value, (*path, str(key)), seen)


def mutate(data: bytes, rng: random.Random) -> bytes:
    try:
        if data[:2] == b"PK":
            return mutate_zip(data, rng, _member)
        if data[:1] == b"\x80":
            return _mutate_legacy(data, rng)
        length = int.from_bytes(data[:8], "little")
        return _mutate_safetensors(data[8 : 8 + length], data[8 + length :], rng)
    except (ValueError, IndexError, KeyError, pickle.UnpicklingError, UnicodeError):
        return mutate_bytes(data, rng)


def _member(name: str, content: bytes, rng: random.Random) -> bytes:
    if name.endswith(".pkl"):
        return mutate_steps(content, rng) if rng.random() < 0.9 else mutate_bytes(content, rng)
    if name.endswith("byteorder"):
        return rng.choice((b"big", b"little", b"", b"\xff"))
    return mutate_bytes(content, rng) if rng.random() < 0.5 else content[: rng.randint(0, 40)] * rng.randint(0, 3)


def _mutate_legacy(data: bytes, rng: random.Random) -> bytes:
    # A mark, a version, the machine's sizes, the content, names of storages; then the storages.
    chosen = rng.choice((0, 1, 2, 3, 3, 3, 3, 3, 3, 4, 5))
    head, rest = b"", data
    for _ in range(chosen):
        rest_after = steps_of(rest)[1]
        head, rest = head + rest[: len(rest) - len(rest_after)], rest_after
    return head + (mutate_steps(rest, rng) if chosen < 5 else mutate_bytes(rest, rng))


def _mutate_safetensors(header: bytes, rest: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        header = mutate_json(header, rng)
    else:
        tensors = json.loads(header)
        tensor = tensors[rng.choice([name for name in tensors if name != "__metadata__"])]
        kind = rng.randrange(3)
        if kind == 0:
            tensor["dtype"] = rng.choice((*_DTYPES, "F4", "C64", "U64", "F8_E8M0", "X", ""))
        elif kind == 1:
            tensor["shape"] = [rng.choice((0, 1, 2, 3, 4, 6, 2**31, 2**63)) for _ in range(rng.choice((0, 1, 2, 9)))]
        else:
            tensor["data_offsets"] = sorted(rng.choice((0, 8, 24, 32, 40, 2**40)) for _ in range(2))
        header = json.dumps(tensors).encode()
    length = len(header) if rng.random() < 0.95 else rng.choice((0, 2**22, 2**27, 2**63))
    return length.to_bytes(8, "little") + header + rest
