"""Pack the photographs and a run's first weights for training on a machine without a network, in at most 60 MiB.

    python -m training.carry DATA --decoder .cache/lite_medsam.pth -o .cache/carried    # for the recipe gpu
    python -m training.carry DATA --start training/runs/trunk/model.pth -o .cache/carried    # for the recipe trunk_gpu

Writes two files to FOLDER, and prints their sizes. If they exceed 60 MiB, nothing is written.

- packed.npz: the photographs as `training.pack` packs them, but larger and as WebP
- decoder.pth: the part of LiteMedSAM's checkpoint that a run uses, in half precision; or start.pth: all weights of a
  model, in half precision
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
from training.pack import Encoding, pack
from training.weights import write_weights

LIMIT = 60 * 2**20
SIDE = 512  # pixels, the side of a recipe's last stage
# With the masks 35 MiB, to which a whole model adds 20. For the same error WebP takes a quarter less than JPEG.
QUALITY = 48


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA", type=Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--decoder", type=Path, metavar="FILE.pth", help="LiteMedSAM's checkpoint")
    source.add_argument(
        "--start", type=Path, metavar="FILE.pth", help="a run's model.pth, all of whose weights are taken"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--quality", type=int, default=QUALITY, help=f"of the photographs, 1 to 100 (default {QUALITY})"
    )
    arguments = parser.parse_args()
    try:
        if arguments.decoder:
            weights = "decoder.pth", decoder_of(arguments.decoder)
        else:
            weights = "start.pth", read_checkpoint(arguments.start).state
        sizes = carry(arguments.data, weights, arguments.output, arguments.quality)
    except SamrtError as error:
        print(f"training.carry: {error}", file=sys.stderr)
        return 1
    for name, size in sizes.items():
        print(f"{arguments.output / name}: {_mib(size)}")
    print(f"together: {_mib(sum(sizes.values()))} of at most {_mib(LIMIT)}")
    return 0


def decoder_of(checkpoint: Path) -> dict[str, Tensor]:
    """The part of LiteMedSAM's checkpoint that a run starts from.

    Raises:
        InputError: there is no such file.
        BundleError: it is no checkpoint.
    """
    if not checkpoint.is_file():
        raise InputError(f"there is no file {checkpoint}; download it with `python training/lite_medsam.py`")
    state = read_checkpoint(checkpoint).state
    return {name: tensor for name, tensor in state.items() if name.startswith(TAKEN)}


def carry(
    data: Path, weights: tuple[str, Mapping[str, Tensor]], folder: Path, quality: int = QUALITY
) -> dict[str, int]:
    """Write both files into a folder; returns the size of each in bytes.

    Args:
        weights: the name of their file and the weights.

    Raises:
        InputError: as `pack`; or both come to more than `LIMIT`, and nothing was written.
        OutputError: the folder cannot be written.
    """
    name, state = weights
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            fresh = Path(temporary)
            write_weights(state, fresh / name)
            pack(data, fresh / "packed.npz", Encoding(SIDE, ".webp", (cv2.IMWRITE_WEBP_QUALITY, quality)))
            sizes = {path.name: path.stat().st_size for path in sorted(fresh.iterdir())}
            if sum(sizes.values()) > LIMIT:
                listed = ", ".join(f"{each} {_mib(size)}" for each, size in sizes.items())
                raise InputError(
                    f"{listed}: together more than {_mib(LIMIT)}, so nothing was written; give a --quality below "
                    f"{quality}, or DATA with fewer photographs"
                )
            for each in sizes:
                (fresh / each).replace(folder / each)
    except SamrtError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write into the folder {folder}: {error.strerror}; choose another place") from error
    return sizes


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB ({size} bytes)"


if __name__ == "__main__":
    sys.exit(main())
