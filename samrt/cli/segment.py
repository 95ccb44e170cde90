"""`samrt segment`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from samrt.bundle.default import default_bundle
from samrt.cli.outputs import STDOUT, output_path, output_path_or_stdout
from samrt.cli.prompts import (
    PromptArguments,
    check_prompt_arguments,
    parse_box,
    parse_point,
    parse_region,
    read_prompt_arguments,
)
from samrt.cli.remedies import in_flags
from samrt.cli.streams import is_closed, tell

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from samrt.decoding import RlePrediction
    from samrt.embedding import Region
    from samrt.model import Model

_STDIN = Path("-")

DESCRIPTION = """\
Predict masks for prompts on an image. Writes the masks drawn over the image (-o), the masks as COCO run lengths
(--json), or both.

Coordinates are pixels of the image: x to the right and y down from the upper left corner."""

EPILOG = """\
one object:
  samrt segment photo.jpg --point 420,310
  samrt segment photo.jpg --point 420,310 --point 510,330,0   the object at the first point, without the second
  samrt segment photo.jpg --box 120,80,640,520 -o cup.png
  samrt segment photo.jpg --mask painted.png --json cup.json

several objects:
  samrt segment photo.jpg --box 10,20,200,180 --box 220,15,400,190

a small object in a large image:
  samrt segment photo.jpg --region 2000,1200,2600,1700 --point 2310,1450

three masks for an ambiguous point (part, object, whole), side by side:
  samrt segment photo.jpg --point 420,310 --multimask

with your own model instead of the one that comes with samrt:
  samrt segment photo.jpg --bundle vit_b --point 420,310

an image from another program:
  curl -s https://example.com/photo.jpg | samrt segment - --point 420,310 -o cup.png

Without -o and --json, the masks of photo.jpg are drawn to photo_masks.png in the current folder. A file that is there
is replaced only if samrt wrote it, or with --overwrite. stdout has one line per mask (score, area, box as x0,y0,x1,y1),
or with --json - the JSON alone; stderr has the times, and a warning for each empty mask. To read a mask from the JSON:
pycocotools.mask.decode(mask["segmentation"]). Its bbox is x, y, width, height, as in COCO.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("image", metavar="IMAGE", type=Path, help="an image file, or - for stdin")
    parser.add_argument(
        "--bundle", metavar="B", type=Path, help="the model: the folder of a bundle (default: the model in samrt)"
    )
    prompts = parser.add_argument_group(
        "prompts: give at least one; all together describe one object, except several boxes"
    )
    prompts.add_argument(
        "--point",
        metavar="X,Y[,LABEL]",
        type=parse_point,
        action="append",
        default=[],
        help="a point on the object (label 1, the default) or not on it (label 0); may be repeated",
    )
    prompts.add_argument(
        "--box",
        metavar="X0,Y0,X1,Y1",
        type=parse_box,
        action="append",
        default=[],
        help="a box around the object; if repeated, each box is one object, and other prompts are not allowed",
    )
    prompts.add_argument(
        "--mask",
        metavar="FILE",
        type=Path,
        help="a picture of the image's size, black except where the object is painted in white or a bright colour; "
        "or a .npy file with the low_res_masks of an earlier prediction, float logits [1, L, L]. For a .npy file alone "
        "the model that comes with samrt returns an empty mask: add a point or a box",
    )
    parser.add_argument(
        "--region",
        metavar="X0,Y0,X1,Y1",
        type=parse_region,
        help="use only this part of the image, at the model's full resolution; for small objects in a large image",
    )
    parser.add_argument(
        "--clip",
        action="store_true",
        help="cut boxes off at the edge of the image, or of the region; without it, only what is less than a pixel "
        "past the edge is cut off, and other boxes are refused",
    )
    parser.add_argument(
        "--multimask",
        action="store_true",
        help="return the masks of an ambiguous prompt, three for SAM, instead of one",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT.png", type=_png, help="draw the masks over the image and write this file"
    )
    parser.add_argument(
        "--json",
        metavar="OUT.json",
        type=output_path_or_stdout,
        help="write the masks as COCO run lengths, with scores, to this file; - for stdout",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace output files that are there and were not written by samrt"
    )
    parser.add_argument(
        "--backend",
        metavar="NAME",
        default="auto",
        help="onnxruntime, tensorrt, tensorrt_rtx or auto; auto takes the best engines in the bundle that fit the GPU, "
        "or onnxruntime if there are none (default: auto)",
    )
    parser.add_argument(
        "--precision",
        metavar="P",
        help="fp32 or fp16; the bundle must hold it (default: the best for the backend, fp32 on a CPU)",
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=int,
        help="number of threads of onnxruntime (default: one per core); no effect on a GPU",
    )
    parser.set_defaults(refuse=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Segment, write the files that were asked for, and say so."""
    arguments.bundle = arguments.bundle or default_bundle()
    picture_path, json_path = _outputs(arguments)
    check_prompt_arguments(arguments)
    from samrt.cli.results import MARK, Results
    from samrt.embedding import check_region
    from samrt.files import check_target
    from samrt.images import read_image
    from samrt.png import PNG_MARK

    for path, mark in ((picture_path, PNG_MARK), (json_path, MARK)):
        if path is not None and path != STDOUT:
            check_target(path, None if arguments.overwrite else mark)
    image = read_image(_image_source(arguments))
    prompts = read_prompt_arguments(arguments)
    region = None if arguments.region is None else check_region(arguments.region, image.shape[:2])
    prediction, model = _predict(arguments, image, prompts, region)
    results = Results.of(prediction, prompts)
    if json_path is not None:
        seen = {"image": str(arguments.image), "size": list(image.shape[:2]), "region": region}
        results.write_json(json_path, seen, arguments.bundle, model.manifest, str(model.choice), arguments.overwrite)
    if picture_path is not None:
        results.write_picture(picture_path, image, region, arguments.overwrite)
    say = tell if json_path == STDOUT else print
    for warning in results.warnings():
        tell(warning)
    for line in results.lines():
        say(line)
    for path in (picture_path, json_path):
        if path is not None and path != STDOUT:
            say(f"wrote {path}")
    return 0


def _predict(
    arguments: argparse.Namespace, image: npt.NDArray[np.uint8], prompts: PromptArguments, region: Region | None
) -> tuple[RlePrediction, Model]:
    """The masks, and the model that made them, closed. Says on stderr what ran, and for how long.

    The embedding ends here: ONNX Runtime keeps all its memory, some 700 MB, as long as an array of its is in use.
    """
    from samrt.model import load

    started = time.perf_counter()
    running = {"precision": arguments.precision, "threads": arguments.threads}
    with load(arguments.bundle, arguments.backend, **running) as model:
        loaded = time.perf_counter()
        # Here rather than after the encoder, which can take a minute.
        model.check_prompts(image.shape[:2], **prompts.keywords, region=region, clip=arguments.clip)
        embedding = model.encode(image, region=region)
        encoded = time.perf_counter()
        multimask = arguments.multimask
        given = model.prompts_for(embedding, **prompts.keywords, clip=arguments.clip, multimask_output=multimask)
        # Run lengths: the masks of many boxes on a large photograph do not fit the memory together.
        prediction = model.decoder.predict_rle(embedding, given, multimask)
        decoded = time.perf_counter()
    for reason in model.choice.skipped:
        tell(f"samrt: skipped {in_flags(reason)}")
    tell(
        f"{model.choice}: load {loaded - started:.2f} s, encode {encoded - loaded:.2f} s, "
        f"decode {decoded - encoded:.3f} s"
    )
    return prediction, model


def _image_source(arguments: argparse.Namespace) -> Path | IO[bytes]:
    image: Path = arguments.image
    if image != _STDIN:
        return image
    if is_closed(sys.stdin) or sys.stdin.isatty():
        arguments.refuse("- is an image from stdin, and nothing is piped there; a file of that name is ./-")
    return sys.stdin.buffer


def _outputs(arguments: argparse.Namespace) -> tuple[Path | None, Path | str | None]:
    """Where to write the picture and the JSON, a file or `STDOUT`; refuses to write over what is read."""
    picture: Path | None = arguments.output
    if picture is None and arguments.json is None:
        picture = Path(f"{'stdin' if arguments.image == _STDIN else arguments.image.stem}_masks.png")
    written = [path for path in (picture, arguments.json) if isinstance(path, Path)]
    read = [path for path in (arguments.image, arguments.mask) if path is not None]
    bundle = _real(arguments.bundle)
    for path in written:
        if any(_real(path) == _real(other) for other in read):
            arguments.refuse(f"{path} is an input and would be written over; choose another name for the output")
        if bundle in (_real(path), *_real(path).parents):
            arguments.refuse(f"{path} is the bundle or lies in it; choose another name for the output")
    if arguments.json == STDOUT and is_closed(sys.stdout):
        arguments.refuse("stdout is closed, and --json - writes to it; name a file")
    if len(written) == 2 and _real(written[0]) == _real(written[1]):
        arguments.refuse(f"the picture and the JSON cannot both be {picture}; choose two names")
    return picture, arguments.json


def _real(path: Path) -> Path:
    # Unlike Path.resolve, answers for links in a circle too.
    return Path(os.path.realpath(path))


def _png(text: str) -> Path:
    path = output_path(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"the picture is a PNG: name it {path.stem or 'masks'}.png, not {text!r}")
    return path
