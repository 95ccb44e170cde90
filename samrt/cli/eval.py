"""`samrt eval`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from samrt.bundle.default import default_bundle
from samrt.cli.outputs import output_path
from samrt.cli.parser import words
from samrt.cli.streams import quiet_pictures, show
from samrt.errors import SamrtError

DESCRIPTION = """\
Measure the accuracy of a bundle's masks on annotated images, by the protocol of the SAM paper. The prompt is one box
per object, or points: each next point is placed in the error of the last mask. Every score is printed beside
baselines: shapes that use the prompt but not the image.

DATA is a folder with an index.json, a folder of such folders, or a COCO JSON file (instances or panoptic)."""

EPILOG = """\
examples:
  samrt eval data/fruit                                                 the model that comes with samrt
  samrt eval data/fruit --bundle vit_b --prompts box                    boxes only, the fastest
  samrt eval data --bundle vit_b --prompts points:9 -o points           1, 2, 3, 5 and 9 points, every data set in data
  samrt eval data --bundle vit_b --compare vit_b_512                    compare two exports
  samrt eval data --bundle vit_b --compare-backend onnxruntime          compare two backends
  samrt eval coco/annotations/instances_val2017.json --bundle vit_b --limit 500

stdout has the tables, stderr the progress. The output folder has results.json, results.md, pictures of the best,
median and worst masks, and the scores of every object (instances.jsonl). To continue after an interruption, run the
same command again. Data formats, scores and output files are explained in docs/evaluation.md.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "data",
        metavar="DATA",
        type=Path,
        help="the folder of a data set, a folder of such folders, or a COCO JSON file",
    )
    parser.add_argument(
        "--bundle", metavar="B", type=Path, help="the model: the folder of a bundle (default: the model in samrt)"
    )
    parser.add_argument(
        "--prompts",
        metavar="P[,P]",
        type=words,
        action="accumulate",
        default=("box", "points:5"),
        help="box, point, or points:N, which reports 1, 2, 3, 5 and 9 points, up to N (default: box,points:5)",
    )
    parser.add_argument(
        "--backend",
        metavar="NAME",
        default="auto",
        help="onnxruntime, tensorrt, tensorrt_rtx or auto (default: auto)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=output_path,
        help="the folder for the results (default: eval_BUNDLE_DATA, with the names of both)",
    )
    parser.add_argument(
        "--threads", metavar="N", type=int, help="number of threads of onnxruntime (default: one per usable core)"
    )
    parser.add_argument("--limit", metavar="N", type=int, help="use only the first N images of each data set")
    parser.add_argument(
        "--restart", action="store_true", help="start again: delete the scores of these data sets that DIR holds"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files in DIR that have the results' names and were not written by samrt",
    )
    others = parser.add_argument_group("comparison of two models, with a paired bootstrap interval")
    others.add_argument("--compare", metavar="B", type=Path, help="a second bundle, evaluated on the same objects")
    others.add_argument(
        "--compare-backend",
        metavar="NAME",
        help="the backend of the second bundle (default: that of --backend); without --compare, the same bundle is "
        "evaluated with this backend too",
    )
    coco = parser.add_argument_group("COCO JSON files")
    coco.add_argument(
        "--images",
        metavar="DIR",
        type=Path,
        help="the folder of the images, if samrt does not find them near the JSON file",
    )
    coco.add_argument(
        "--masks",
        metavar="DIR",
        type=Path,
        help="the folder of the panoptic PNGs, if it is not named like the JSON file",
    )


@quiet_pictures()
def run(arguments: argparse.Namespace) -> int:
    """Evaluate, with progress on stderr, and print the tables."""
    from samrt.cli.terminal import Terminal
    from samrt.evaluation import Contender, Options, evaluate
    from samrt.evaluation.evaluate import IMAGES
    from samrt.evaluation.report import terminal_report

    arguments.bundle = arguments.bundle or default_bundle()
    folder = arguments.output or _default_folder(arguments.bundle, arguments.data)
    options = Options(
        prompts=",".join(arguments.prompts),
        images=arguments.images,
        masks=arguments.masks,
        limit=arguments.limit,
        restart=arguments.restart,
        overwrite=arguments.overwrite,
        threads=arguments.threads,
    )
    other = None
    if arguments.compare is not None or arguments.compare_backend is not None:
        other = Contender(arguments.compare or arguments.bundle, arguments.compare_backend or arguments.backend)
    progress = Terminal(sys.stderr)
    try:
        contender = Contender(arguments.bundle, arguments.backend)
        evaluation = evaluate(arguments.data, contender, folder, options, other, progress)
    except (KeyboardInterrupt, SamrtError):
        if any(done and what.startswith(IMAGES) for what, done in progress.done.items()):
            same = "the same command without --restart" if arguments.restart else "the same command"
            progress.say(f"the images that were done are kept in {folder}; {same} goes on from there")
        raise
    finally:
        progress.end_line()
    print(terminal_report(evaluation))
    show(f"wrote {folder}")
    return 0


def _default_folder(bundle: Path, data: Path) -> Path:
    """Another for each bundle and data set; a data set is named as the evaluation names it."""
    named = Path(os.path.abspath(data))
    of_data = named.stem if data.is_file() else named.name or "data"
    return Path(f"eval_{Path(os.path.realpath(bundle)).stem}_{of_data}")
