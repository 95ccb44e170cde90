"""Checks of the arguments of training.train."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from samrt.errors import InputError
from training.recipes import RECIPES

_TRUNK_REMEDY = "fetch the trunk's weights with `python -m training.efficientnet`"


def check_inputs(arguments: argparse.Namespace) -> None:
    """Before anything is read or written.

    Raises:
        InputError: a file or the GPU is missing, or --trunk is, or is given to a recipe that has none.
    """
    has_trunk = RECIPES[arguments.recipe].trunk is not None
    if has_trunk and arguments.trunk is None:
        raise InputError(
            f"--trunk is missing: the recipe {arguments.recipe} starts from a pretrained trunk; {_TRUNK_REMEDY}"
        )
    if not has_trunk and arguments.trunk is not None:
        raise InputError(f"the recipe {arguments.recipe} has no trunk; leave --trunk out")
    files: list[tuple[Path, str]] = [
        (arguments.data, "create it with `python -m training.pack`"),
        (arguments.decoder, "fetch it with `python training/lite_medsam.py`"),
    ]
    if has_trunk:
        files.append((arguments.trunk, _TRUNK_REMEDY))
    for path, remedy in files:
        if not path.is_file():
            raise InputError(f"there is no file {path}; {remedy}")
    if torch.device(arguments.device).type == "cuda" and not torch.cuda.is_available():
        raise InputError("torch finds no GPU on this machine; leave --device out to train on the CPU")
