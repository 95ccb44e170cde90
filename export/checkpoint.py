"""Reading a checkpoint without trusting it.

A `.pth` file is a pickle, and unpickling can run any code its author wrote. torch's `weights_only` reader builds
tensors and plain containers only; everything it refuses, samrt refuses.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samrt.errors import BundleError
from samrt.files import sha256_of

EXPECTED = (
    "expected a PyTorch checkpoint (.pth): a dictionary of tensors, as torch.save(model.state_dict(), path) writes it"
)

_WRAPPERS = ("model", "state_dict", "model_state_dict")
# Left by DistributedDataParallel and torch.compile.
_PREFIXES = ("module.", "_orig_mod.")

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"  # torch.save before 1.6
_OTHER_FILES = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: fetch it with `git lfs pull`",
    b"<": "a web page, such as a failed download leaves behind: download the checkpoint again",
}


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint file.

    `state` maps parameter names, without wrappers and prefixes, to CPU tensors. Those of floating point are float32 and
    finite; those of a zip checkpoint are mapped from the file, which has to stay in place while they are used.
    `sha256` (hexadecimal) and `bytes` are those of the file.
    """

    path: Path
    state: dict[str, Tensor]
    sha256: str
    bytes: int


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a state dict that `torch.save` wrote, alone or under "model", "state_dict" or "model_state_dict".

    No code of the file is run. Weights of other floating point types are converted to float32.

    Raises:
        BundleError: the file is missing, truncated, of another kind, asks to run code, holds no tensors or other things
            among them, claims more data than it has, or holds weights that are not finite.
    """
    path = Path(path)
    try:
        size = _size_of(path)
        state = _unwrapped(_content_of(path), path)
        _check_sizes(state, size, path)
        state = {name: _as_weight(name, tensor, path) for name, tensor in state.items()}
        return Checkpoint(path, state, sha256_of(path), size)
    except OSError as error:
        raise BundleError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error


def _size_of(path: Path) -> int:
    if path.is_dir():
        raise BundleError(f"{path} is a folder; {EXPECTED}")
    if not path.exists():
        raise BundleError(f"the checkpoint {path} does not exist; check the path")
    if not path.is_file():
        raise BundleError(f"{path} is not a regular file; {EXPECTED}")
    size = path.stat().st_size
    if size == 0:
        raise BundleError(f"the checkpoint {path} is empty; download or copy it again")
    return size


def _content_of(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    if head.startswith(_ZIP):
        _check_zip(path)
        return _torch_load(path, mapped=True)
    if head.startswith(_PICKLE):
        return _torch_load(path, mapped=False)
    kind = next((f" but {kind}" for start, kind in _OTHER_FILES.items() if head.startswith(start)), "")
    raise BundleError(f"{path} is not a checkpoint{kind}; {EXPECTED}")


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # a hostile file can make a reader fail in any way
        raise _damaged(path, error) from error
    names = {entry.filename.rpartition("/")[2] for entry in entries}
    if "constants.pkl" in names:
        raise BundleError(f"{path} is a TorchScript program; {EXPECTED}")
    if "data.pkl" not in names:
        raise BundleError(f"{path} is a zip archive, but not one that torch.save wrote; {EXPECTED}")
    # torch.save never compresses; a small file that unpacks to a huge one is an attack on this machine's memory.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise BundleError(f"{path} is compressed, which torch.save never does; {EXPECTED}")


def _torch_load(path: Path, mapped: bool) -> Any:
    try:
        with warnings.catch_warnings():
            # Notes on old protocols and storages; what matters is raised.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise BundleError(
            f"{path} holds Python objects where only tensors belong ({_refused(str(error))}). samrt never runs code "
            f"from a checkpoint, so it was not loaded; {EXPECTED}. If you trust its author, load it with the code it "
            "came from and save the state dict"
        ) from error
    except Exception as error:  # as above
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> BundleError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return BundleError(f"the checkpoint {path} is truncated or damaged ({reason}); download or copy it again")


def _refused(report: str) -> str:
    """What torch's reader stopped at, out of its page of advice (some of which is to switch the protection off)."""
    if wanted := re.search(r"GLOBAL (\S+)", report):
        return f"it asks for {wanted[1]}"
    if reason := re.search(r"WeightsUnpickler error:\s*(.+)", report):
        return reason[1]
    return "its pickle is not one of torch.save"


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, dict):
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict):
        raise BundleError(f"{path} holds one object of type {type(content).__name__}; {EXPECTED}")
    if not any(isinstance(value, Tensor) for value in content.values()):
        keys = ", ".join(repr(str(key)[:80])[1:-1] for key in list(content)[:5]) or "nothing"
        raise BundleError(
            f"{path} holds no tensors, but {keys}; {EXPECTED}, alone or under one of {', '.join(_WRAPPERS)}"
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise BundleError(
                f"{path} holds {repr(name)[:80]} of type {type(value).__name__} among its tensors; {EXPECTED}, "
                f"alone or under one of {', '.join(_WRAPPERS)}"
            )
    state: dict[str, Tensor] = dict(content)
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _check_sizes(state: dict[str, Tensor], size: int, path: Path) -> None:
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise BundleError(f"{name} in {path} is not a plain array of numbers; {EXPECTED}")
    # A view of one number can claim any shape, and reading it would fill this machine's memory.
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if claimed > size:
        raise BundleError(
            f"the tensors of {path} claim {claimed:,} bytes, but the file has {size:,}: it is damaged or made to "
            "mislead; download or copy it again"
        )


def _as_weight(name: str, tensor: Tensor, path: Path) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    weight = tensor.detach().float().contiguous()
    if not torch.isfinite(weight).all():
        raise BundleError(
            f"{name} in {path} holds NaN or infinity: the file is damaged, or the training that wrote it diverged; "
            "use another checkpoint"
        )
    return weight
