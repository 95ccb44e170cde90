"""`samrt segment`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from samrt.bundle.default import default_bundle
from samrt.cli.outputs import STDIN, STDOUT, output_path, output_path_or_stdout, png_path, segment_outputs
from samrt.cli.prompts import check_prompt_arguments, parse_box, parse_point, parse_region, read_prompt_arguments
from samrt.cli.remedies import in_flags
from samrt.cli.streams import is_closed, quiet_pictures, show, tell

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from samrt.bundle.contract import Size
    from samrt.cli.prompts import PromptArguments
    from samrt.cli.results import Results
    from samrt.embedding import Region
    from samrt.model import Model

DESCRIPTION = """\
Predict masks for prompts on an image. Writes the masks drawn over the image (-o), the masks as COCO run lengths
(--json), a data set in COCO's format (--coco), or several of these. Several images go into one data set.

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

a data set in COCO's format, of one image or of several with the same prompts (a camera that stands still):
  samrt segment photo.jpg --box 120,80,640,520 --box 30,40,90,110 --coco cups.json --category cup
  samrt segment frames/*.jpg --point 420,310 --coco frames.json

with your own model instead of the one that comes with samrt:
  samrt segment photo.jpg --bundle vit_b --point 420,310

an image from another program:
  curl -s https://example.com/photo.jpg | samrt segment - --point 420,310 -o cup.png

Without -o, --json and --coco, the masks of photo.jpg are drawn to photo_masks.png in the current folder. A file that is
there is replaced only if samrt wrote it, or with --overwrite. stdout has one line per mask (score, area, box as
x0,y0,x1,y1), or with --json - the JSON alone; stderr has the times, and a warning for each empty mask, which the data
set of --coco leaves out. To read a mask from the JSON: pycocotools.mask.decode(mask["segmentation"]). Its bbox is x, y,
width, height, as in COCO.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "images",
        metavar="IMAGE",
        type=Path,
        nargs="+",
        help="an image file, or - for stdin; several need --coco and get the same prompts",
    )
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
        "-o", "--output", metavar="OUT.png", type=png_path, help="draw the masks over the image and write this file"
    )
    parser.add_argument(
        "--json",
        metavar="OUT.json",
        type=output_path_or_stdout,
        help="write the masks as COCO run lengths, with scores, to this file; - for stdout",
    )
    parser.add_argument(
        "--coco",
        metavar="OUT.json",
        type=output_path,
        help="write the masks as a data set in COCO's format, which pycocotools, FiftyOne, CVAT and `samrt eval` read",
    )
    parser.add_argument(
        "--category",
        metavar="NAME",
        default="object",
        help="the category of all masks in the data set of --coco (default: object)",
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
        help="number of threads of onnxruntime (default: one per usable core, see `samrt doctor`); no effect on a GPU",
    )
    parser.set_defaults(refuse=parser.error)


@quiet_pictures()
def run(arguments: argparse.Namespace) -> int:
    """Segment, write the files that were asked for, and say so."""
    arguments.bundle = arguments.bundle or default_bundle()
    outputs = segment_outputs(arguments)
    check_prompt_arguments(arguments)
    from samrt import coco
    from samrt.cli.results import MARK
    from samrt.files import check_target
    from samrt.images import read_image
    from samrt.model import load
    from samrt.png import PNG_MARK

    for path, mark in ((outputs.picture, PNG_MARK), (outputs.json, MARK), (outputs.coco, coco.MARK)):
        if path is not None and path != STDOUT:
            check_target(path, None if arguments.overwrite else mark, tell)
    image, prompts = _read_inputs(arguments)
    several = len(arguments.images) > 1
    writer = coco.CocoWriter(arguments.category)
    say = tell if outputs.json == STDOUT else show
    started = time.perf_counter()
    running = {"precision": arguments.precision, "threads": arguments.threads}
    work = _Work(arguments, prompts)
    with load(arguments.bundle, arguments.backend, **running) as model:
        loaded = time.perf_counter()
        work.check_others(model)
        for path in arguments.images:
            with _naming(path if several else None):
                if path is not arguments.images[0]:
                    image = read_image(path)
                results = work.segment(model, image)
                rles = [entry["segmentation"] for entry in results.entries]
                writer.add(path, image.shape[:2], rles, results.scores.ravel().tolist())
            if several:
                _tell_results(results, say, f"{path}: ")
    for reason in model.choice.skipped:
        tell(f"samrt: skipped {in_flags(reason)}")
    tell(f"{model.choice}: load {loaded - started:.2f} s, encode {work.encoding:.2f} s, decode {work.decoding:.3f} s")
    if outputs.json is not None:
        seen = {"image": str(arguments.images[0]), "size": list(image.shape[:2]), "region": work.region}
        results.write_json(outputs.json, seen, arguments.bundle, model.manifest, str(model.choice), arguments.overwrite)
    if outputs.picture is not None:
        results.write_picture(outputs.picture, image, work.region, arguments.overwrite)
    if outputs.coco is not None:
        writer.write(outputs.coco, overwrite=arguments.overwrite)
    if not several:
        _tell_results(results, say, "")
    for written in (outputs.picture, outputs.json, outputs.coco):
        if written is not None and written != STDOUT:
            say(f"wrote {written}")
    return 0


@dataclass
class _Work:
    """What is done with each image, and the seconds that it took for all of them."""

    arguments: argparse.Namespace
    prompts: PromptArguments
    region: Region | None = None
    encoding: float = 0.0
    decoding: float = 0.0

    def check(self, model: Model, size: Size) -> None:
        """Refuse a region and prompts that do not lie in an image of the size (H, W)."""
        from samrt.embedding import check_region

        if self.arguments.region is not None:
            self.region = check_region(self.arguments.region, size)
        model.check_prompts(size, **self.prompts.keywords, region=self.region, clip=self.arguments.clip)

    def check_others(self, model: Model) -> None:
        """Refuse, before hours of work, images after the first that are none or too small for the prompts."""
        from samrt.images.picture import open_picture

        for path in self.arguments.images[1:]:
            with _naming(path), open_picture(path) as picture:
                self.check(model, picture.size)

    def segment(self, model: Model, image: npt.NDArray[np.uint8]) -> Results:
        from samrt.cli.results import Results

        clip, multimask, prompts = self.arguments.clip, self.arguments.multimask, self.prompts.keywords
        # Here rather than after the encoder, which can take a minute.
        self.check(model, image.shape[:2])
        begun = time.perf_counter()
        embedding = model.encode(image, region=self.region)
        encoded = time.perf_counter()
        given = model.prompts_for(embedding, **prompts, clip=clip, multimask_output=multimask)
        # Run lengths: the masks of many boxes on a large photograph do not fit the memory together. Nor does the
        # picture beside the embedding: ONNX Runtime keeps some 700 MB as long as an array of its is in use.
        results = Results.of(model.decoder.predict_rle(embedding, given, multimask), self.prompts)
        self.encoding += encoded - begun
        self.decoding += time.perf_counter() - encoded
        return results


def _read_inputs(arguments: argparse.Namespace) -> tuple[npt.NDArray[np.uint8], PromptArguments]:
    """The first image, and the prompts."""
    from samrt.images import read_image

    source = _image_source(arguments)
    return read_image(source), read_prompt_arguments(arguments)


def _image_source(arguments: argparse.Namespace) -> Path | IO[bytes]:
    """The first image."""
    image: Path = arguments.images[0]
    if image != STDIN:
        return image
    if is_closed(sys.stdin) or sys.stdin.isatty():
        arguments.refuse("- is an image from stdin, and nothing is piped there; a file of that name is ./-")
    return sys.stdin.buffer


@contextmanager
def _naming(path: Path | None) -> Iterator[None]:
    """Name the image in an error about it, where there are several."""
    from samrt.errors import InputError

    try:
        yield
    except InputError as error:
        if path is None or str(path) in error.facts:
            raise
        raise InputError(f"{path}: {error.facts}", error.remedy) from error


def _tell_results(results: Results, say: Callable[[str], None], image: str) -> None:
    for warning in results.warnings(image):
        tell(warning)
    for line in results.lines():
        say(f"{image}{line}")
