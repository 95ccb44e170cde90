"""Pack the photographs and the decoder's weights for training on a machine without a network, in at most 60 MiB.

    python -m training.carry DATA --decoder .cache/lite_medsam.pth -o .cache/carried

Writes two files to FOLDER: packed.npz, the photographs as `training.pack` packs them but as smaller JPEGs; and
decoder.pth, the part of LiteMedSAM's checkpoint that a run uses, in half precision. Prints their sizes. If they exceed
60 MiB, nothing is written.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import cv2
from torch import Tensor

from samrt.errors import InputError, OutputError, SamrtError
from samrt_export.checkpoint import read_checkpoint
from training.model import TAKEN
from training.pack import pack
from training.weights import write_weights

LIMIT = 60 * 2**20
# The photographs take 41 MiB at this quality, and 50 MiB at 82, the quality of `training.pack`; masks come on top.
QUALITY = 76


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA", type=Path)
    parser.add_argument("--decoder", type=Path, required=True, metavar="FILE.pth", help="LiteMedSAM's checkpoint")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--quality", type=int, default=QUALITY, help=f"quality of the JPEGs, 1 to 100 (default {QUALITY})"
    )
    arguments = parser.parse_args()
    try:
        sizes = carry(arguments.data, arguments.decoder, arguments.output, arguments.quality)
    except SamrtError as error:
        print(f"training.carry: {error}", file=sys.stderr)
        return 1
    for name, size in sizes.items():
        print(f"{arguments.output / name}: {_mib(size)}")
    print(f"together: {_mib(sum(sizes.values()))} of at most {_mib(LIMIT)}")
    return 0


def carry(data: Path, decoder: Path, folder: Path, quality: int = QUALITY) -> dict[str, int]:
    """Write both files into a folder; returns the size of each in bytes.

    Raises:
        InputError: as `pack`; there is no decoder; or both come to more than `LIMIT`, and nothing was written.
        BundleError: the decoder's file is no checkpoint, or lacks what a run takes.
        OutputError: the folder cannot be written.
    """
    if not decoder.is_file():
        raise InputError(f"there is no file {decoder}; download it with `python training/lite_medsam.py`")
    taken = taken_from(read_checkpoint(decoder).state)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            fresh = Path(temporary)
            write_weights(taken, fresh / "decoder.pth")
            pack(data, fresh / "packed.npz", _jpeg(quality))
            sizes = {path.name: path.stat().st_size for path in sorted(fresh.iterdir())}
            if sum(sizes.values()) > LIMIT:
                listed = ", ".join(f"{name} {_mib(size)}" for name, size in sizes.items())
                raise InputError(
                    f"{listed}: together more than {_mib(LIMIT)}, so nothing was written; give a --quality below "
                    f"{quality}, or DATA with fewer photographs"
                )
            for name in sizes:
                (fresh / name).replace(folder / name)
    except SamrtError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write into the folder {folder}: {error.strerror}; choose another place") from error
    return sizes


def _jpeg(quality: int) -> tuple[int, ...]:
    """Progressive, which decodes to the same pixels from 4 % fewer bytes."""
    options = {cv2.IMWRITE_JPEG_QUALITY: quality, cv2.IMWRITE_JPEG_OPTIMIZE: 1, cv2.IMWRITE_JPEG_PROGRESSIVE: 1}
    return tuple(number for pair in options.items() for number in pair)


def taken_from(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of LiteMedSAM's state dict, what a run starts from."""
    return {name: tensor for name, tensor in state.items() if name.startswith(TAKEN)}


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB ({size} bytes)"


if __name__ == "__main__":
    sys.exit(main())
