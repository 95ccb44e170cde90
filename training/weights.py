"""Trained weights as one file, which `samrt export` reads, or split in two files, which suit a repository better.

python -m training.weights split training/runs/cpu/model.pth training/runs/halves
python -m training.weights join training/runs/halves model.pth
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from samrt.errors import BundleError, SamrtError
from samrt.files import replacing_file
from samrt_export.checkpoint import read_checkpoint

HALVES = {"encoder.pth": ("image_encoder.",), "decoder.pth": ("prompt_encoder.", "mask_decoder.")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, command, words in (("split", split, ("FILE.pth", "FOLDER")), ("join", join, ("FOLDER", "FILE.pth"))):
        sub = commands.add_parser(name, help=command.__doc__)
        sub.set_defaults(command=command)
        for place, metavar in zip(("source", "target"), words, strict=True):
            sub.add_argument(place, metavar=metavar, type=Path)
    arguments = parser.parse_args()
    try:
        arguments.command(arguments.source, arguments.target)
    except SamrtError as error:
        print(f"training.weights: {error}", file=sys.stderr)
        return 1
    return 0


def write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict in half precision; the same values give the same bytes, whatever the file is called.

    Raises:
        OutputError: it cannot be written; what was there is untouched.
    """
    # torch writes a file's name into it, but there is none in a buffer.
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu().half().contiguous().clone() for name, tensor in state.items()}, buffer)
    with replacing_file(path) as fresh:
        fresh.write_bytes(buffer.getvalue())


def split(whole: Path, folder: Path) -> None:
    """Write the halves of a checkpoint into a folder."""
    state = read_checkpoint(whole).state
    foreign = [name for name in state if not name.startswith(tuple(chain(*HALVES.values())))]
    if foreign:
        raise BundleError(f"{whole} holds {foreign[0]}, which belongs to neither the encoder nor the decoder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, prefixes in HALVES.items():
        write_weights({key: tensor for key, tensor in state.items() if key.startswith(prefixes)}, folder / name)


def join(folder: Path, whole: Path) -> None:
    """Write the checkpoint whose halves lie in a folder."""
    missing = [name for name in HALVES if not (folder / name).is_file()]
    if missing:
        raise BundleError(
            f"{folder} lacks {' and '.join(missing)}; it does not hold the two files of a split checkpoint"
        )
    write_weights({k: v for name in HALVES for k, v in read_checkpoint(folder / name).state.items()}, whole)


if __name__ == "__main__":
    sys.exit(main())
