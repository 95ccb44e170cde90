"""Where commands write: the values of -o, --json and their like."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from samrt.cli.streams import is_closed
from samrt.files import path_of

STDIN, STDOUT = Path("-"), "-"
_STDOUT_NAMES = (STDOUT, "/dev/stdout", "/dev/fd/1")


def output_path(text: str) -> Path:
    """The path of a file or a folder that a command writes."""
    if text in _STDOUT_NAMES:
        raise argparse.ArgumentTypeError("it is not written to stdout; give it a name (./- for the name -)")
    return Path(text)


def png_path(text: str) -> Path:
    """The same of a picture."""
    path = output_path(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"the picture is a PNG: name it {path.stem or 'masks'}.png, not {text!r}")
    return path


def output_path_or_stdout(text: str) -> Path | str:
    """The same as `output_path`, or `STDOUT`."""
    return STDOUT if text in _STDOUT_NAMES else Path(text)


@dataclass(frozen=True)
class SegmentOutputs:
    """Where to write what; None is nowhere, and the JSON may go to `STDOUT`."""

    picture: Path | None
    json: Path | str | None
    coco: Path | None


def segment_outputs(arguments: argparse.Namespace) -> SegmentOutputs:
    """The outputs; refuses to write over what is read, and several images into what holds one."""
    images: list[Path] = arguments.images
    picture: Path | None = arguments.output
    if len(images) > 1 and (arguments.coco is None or picture or arguments.json):
        arguments.refuse(
            f"{len(images)} images: their masks go into one data set, --coco OUT.json; -o and --json are of one image"
        )
    if STDIN in images and arguments.coco is not None:
        arguments.refuse("an image from stdin has no name, and the data set of --coco names its images; name a file")
    known: set[Path] = set()
    for image in images:
        if _real(image) in known:
            arguments.refuse(f"{image} is given twice; name each image once")
        known.add(_real(image))
    if picture is None and arguments.json is None and arguments.coco is None:
        picture = Path(f"{'stdin' if images[0] == STDIN else images[0].stem}_masks.png")
    if arguments.category != "object" and arguments.coco is None:
        arguments.refuse("--category is of the data set of --coco; give both")
    written = [path for path in (picture, arguments.json, arguments.coco) if isinstance(path, Path)]
    read = [path for path in (*images, arguments.mask) if path is not None]
    bundle = _real(arguments.bundle)
    for path in written:
        if any(_real(path) == _real(other) for other in read):
            arguments.refuse(f"{path} is an input and would be written over; choose another name for the output")
        if bundle in (_real(path), *_real(path).parents):
            arguments.refuse(f"{path} is the bundle or lies in it; choose another name for the output")
    if arguments.json == STDOUT and is_closed(sys.stdout):
        arguments.refuse("stdout is closed, and --json - writes to it; name a file")
    for index, path in enumerate(written):
        if any(_real(path) == _real(other) for other in written[:index]):
            arguments.refuse(f"two outputs cannot both be {path}; choose two names")
    return SegmentOutputs(picture, arguments.json, arguments.coco)


def _real(path: Path) -> Path:
    # Unlike Path.resolve, answers for links in a circle too.
    return Path(os.path.realpath(path_of(path, "a file")))
