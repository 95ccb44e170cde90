"""Reading a checkpoint without trusting it.

A `.pth` file is a pickle, and unpickling can run any code its author wrote. torch's `weights_only` reader builds
tensors and plain containers only, and the values of `bookkeeping.py` as nothing; everything else samrt refuses.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samrt.bundle.file_state import FileState
from samrt.errors import BundleError
from samrt.files import sha256_of
from samrt_export.bookkeeping import ALLOWED
from samrt_export.file_kinds import (
    EXPECTED,
    PICKLE,
    SAFETENSORS,
    ZIP,
    check_zip,
    kind_of,
    read_record,
    sizes_of_records,
)
from samrt_export.pickle_check import check_old_pickles, check_pickle
from samrt_export.safetensors_file import read_safetensors
from samrt_export.state import find, listed

_DTYPES = (
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)
# Of a tensor, and the product of its sides where one is zero.
_MOST_AXES, _LARGEST = 16, 2**40


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint file.

    `state` maps parameter names, without wrappers and prefixes, to CPU tensors. Those of floating point are float32 and
    finite; those of a zip checkpoint are mapped from the file, which has to stay in place while they are used.
    `sha256` (hexadecimal) and `bytes` are those of the file. `root` is what stood before the names, and `left_out` is
    what else the file holds, each as one name. `base` is what a fine-tuning was laid over; its `state` is
    what was taken from it.
    """

    path: Path
    state: dict[str, Tensor]
    sha256: str
    bytes: int
    root: str = ""
    left_out: tuple[str, ...] = ()
    base: Checkpoint | None = None


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read the tensors of a model from what `torch.save` wrote, or from a safetensors file.

    They may stand under any keys and behind any prefix that their names share; the optimizer and the like beside them
    are left out. No code of the file is run. Weights of other floating point types are converted to float32.

    Raises:
        BundleError: the file is missing, truncated, of another kind, asks to run code, holds no tensors, other things
            among them or several models, claims more data than it has, or holds weights that are not finite or not
            plain numbers.
    """
    path = Path(path)
    try:
        size = _size_of(path)
        before = FileState.of(path)
        content = _content_of(path)
        if not isinstance(content, Mapping):
            raise BundleError(f"{path} holds one object of type {type(content).__name__}; {EXPECTED}")
        with _as_misleading(path):
            found = find(content)
        if not found.state:
            kind = "numpy arrays or settings: " if found.strange else ""
            names = listed(found.strange or found.left_out) or "nothing"
            raise BundleError(f"{path} holds no tensors, but {kind}{names}; {EXPECTED}")
        if found.rivals:
            raise BundleError(
                f"{path} holds several models, under {listed((found.root, *found.rivals))}; save the state dict of the "
                "one that you want"
            )
        if found.added:
            raise BundleError(
                f"{path} holds weights of LoRA or an adapter ({listed(found.added)}), which change layers while the "
                "model runs, and samrt runs the layers alone; merge them into the model (peft: merge_and_unload) and "
                "save its state dict"
            )
        for name, kind in found.strange.items():
            raise BundleError(f"{path} holds {listed([name])}, {kind}, among its tensors; {EXPECTED}")
        _check_sizes(found.state, size, path)
        state = {name: _as_weight(name, tensor, path) for name, tensor in found.state.items()}
        sha256 = sha256_of(path)
        # It was opened by its name several times: to be checked, to be read, and for its hash.
        if FileState.of(path) != before:
            raise BundleError(
                f"{path} was replaced or changed while it was read; wait until it is whole, and try again"
            )
        return Checkpoint(path, state, sha256, size, found.root, found.left_out)
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
    kind = kind_of(path)
    if kind in (ZIP, PICKLE):
        try:
            if kind == ZIP:
                check_zip(path)
            _check_bounds(path, kind)
        except BundleError:
            raise
        except Exception as error:  # a hostile file can make a reader fail in any way
            raise _damaged(path, error) from error
        return _torch_load(path, mapped=kind == ZIP)
    if kind == SAFETENSORS:
        return read_safetensors(path)
    raise BundleError(f"{path} is not a checkpoint{f' but {kind}' if kind else ''}; {EXPECTED}")


def _check_bounds(path: Path, kind: str) -> None:
    size = path.stat().st_size
    with _as_misleading(path):
        if kind == PICKLE:
            with path.open("rb") as file:
                check_old_pickles(file, size)
            return
        with zipfile.ZipFile(path) as archive:
            records = sizes_of_records(path, archive)
            for entry in archive.infolist():
                # All, because torch takes another of two with one name, and does not tell small letters from capitals.
                if entry.filename.casefold().endswith("data.pkl"):
                    # As torch does, whole: byte by byte, an archive takes long.
                    check_pickle(io.BytesIO(read_record(path, entry)), size, records)


@contextmanager
def _as_misleading(path: Path) -> Iterator[None]:
    try:
        yield
    except BundleError as error:
        raise BundleError(
            f"{path} was not read: {error.facts}. It is damaged or made to mislead; download or copy it again, or save "
            "the state dict alone"
        ) from error


def _torch_load(path: Path, mapped: bool) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(ALLOWED):
            # Notes on old protocols and storages; what matters is raised.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise BundleError(
            f"{path} holds Python objects where only tensors belong ({_refused(str(error))}). samrt never runs code "
            f"from a checkpoint, so it was not loaded; {EXPECTED}. If you trust its author, load it with the code it "
            "came from and save the state dict"
        ) from error
    except MemoryError as error:
        raise BundleError(f"there is not enough memory to read {path}; free some, or use another machine") from error
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


def _check_sizes(state: dict[str, Tensor], size: int, path: Path) -> None:
    for name, tensor in state.items():
        kind = _unusual(tensor)
        if kind:
            raise BundleError(
                f"{listed([name])} in {path} is {kind}, not a plain array of real numbers; save the model as float32"
            )
        # torch itself fails on more axes, and on empty tensors whose other sides are too large together.
        if tensor.dim() > _MOST_AXES or math.prod(side for side in tensor.shape if side) > _LARGEST:
            raise BundleError(
                f"{listed([name])} in {path} has a shape that no weight has, of {tensor.dim()} axes: it is damaged or "
                "made to mislead; download or copy it again"
            )
    # A view of one number can claim any shape, and reading it would fill this machine's memory.
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if claimed > size:
        raise BundleError(
            f"the tensors of {path} claim {claimed:,} bytes, but the file has {size:,}: it is damaged or made to "
            "mislead; download or copy it again"
        )


def _unusual(tensor: Tensor) -> str:
    """What keeps a tensor from being plain numbers in memory; empty where nothing does."""
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return f"a tensor of the kind {type(tensor).__name__}"
    if tensor.is_quantized:
        return f"quantised ({tensor.dtype})"
    if tensor.is_complex():
        return f"of complex numbers ({tensor.dtype})"
    if tensor.device.type != "cpu":
        return f"without values here (torch device {tensor.device})"
    if tensor.layout != torch.strided:
        return f"stored sparsely ({tensor.layout})"
    return "" if tensor.dtype in _DTYPES else f"of an unusual type ({tensor.dtype})"


def _as_weight(name: str, tensor: Tensor, path: Path) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    weight = tensor.detach().float().contiguous()
    if not torch.isfinite(weight).all():
        raise BundleError(
            f"{listed([name])} in {path} holds NaN or infinity: the file is damaged, or the training that wrote it "
            "diverged; use another checkpoint"
        )
    return weight
