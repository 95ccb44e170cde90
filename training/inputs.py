"""Checks of the arguments of training.train."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from samrt.errors import InputError
from training.recipes import RECIPES

_DECODER_REMEDY = "fetch it with `python training/lite_medsam.py`"
_TRUNK_REMEDY = "fetch the trunk's weights with `python -m training.efficientnet`"


def check_inputs(arguments: argparse.Namespace) -> None:
    """Before anything is read or written.

    Raises:
        InputError: a file or the GPU is missing, or the first weights are, or some that the recipe has no use for are
            given.
    """
    files: list[tuple[Path, str]] = [(arguments.data, "create it with `python -m training.pack`")]
    if arguments.start is None:
        files += _parts(arguments)
    elif arguments.decoder or arguments.trunk:
        raise InputError("--start gives all of the first weights; leave --decoder and --trunk out")
    else:
        files.append((arguments.start, "give the model.pth of a run"))
    for path, remedy in files:
        if not path.is_file():
            raise InputError(f"there is no file {path}; {remedy}")
    if torch.device(arguments.device).type == "cuda" and not torch.cuda.is_available():
        raise InputError("torch finds no GPU on this machine; leave --device out to train on the CPU")


def _parts(arguments: argparse.Namespace) -> list[tuple[Path, str]]:
    """The files of a run that starts from the parts of other models, and how to get them."""
    has_trunk = RECIPES[arguments.recipe].trunk is not None
    if arguments.decoder is None:
        raise InputError(f"--decoder is missing: the decoder's first weights; {_DECODER_REMEDY}")
    if has_trunk and arguments.trunk is None:
        raise InputError(
            f"--trunk is missing: the recipe {arguments.recipe} starts from a pretrained trunk; {_TRUNK_REMEDY}"
        )
    if not has_trunk and arguments.trunk is not None:
        raise InputError(f"the recipe {arguments.recipe} has no trunk; leave --trunk out")
    return [(arguments.decoder, _DECODER_REMEDY), *([(arguments.trunk, _TRUNK_REMEDY)] if has_trunk else [])]
