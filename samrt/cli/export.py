"""`samrt export`."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from samrt.cli.outputs import output_path
from samrt.cli.parser import words
from samrt.cli.terminal import Terminal
from samrt.errors import SamrtError

DESCRIPTION = """\
Convert a SAM checkpoint to a bundle, which `samrt segment` runs without torch.

The model is recognised by its parameters, not by the file name. The exported graphs are run in ONNX Runtime and
compared with the torch model. If the difference exceeds the tolerance, nothing is written."""

EPILOG = """\
examples:
  samrt export sam_vit_b_01ec64.pth -o vit_b
  samrt export lite_medsam.pth -o lite_medsam
  samrt export sam_vit_b_01ec64.pth -o vit_b_512 --image-size 512     faster, coarser
  samrt export sam_vit_b_01ec64.pth -o vit_b --precision fp32,fp16    for CPUs, and for `samrt build` on a GPU
  samrt export sam_vit_b_01ec64.pth -o vit_b --precision fp32,fp16 --lowering auto,plugin
                                         the same, with samrt's TensorRT plugin for attention
  samrt export my_decoder.pth --base sam_vit_b_01ec64.pth -o mine     a fine-tuned decoder, the rest from SAM

Needs torch, onnx and onnxscript: in a checkout of samrt, pip install '.[export]'
"""

_LOWERINGS = ("auto", "dense", "chunked", "augmented", "plugin")
_NEEDED = ("torch", "onnx", "onnxscript")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        type=Path,
        help="a .pth or safetensors file with the weights of a model of the SAM family",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="BUNDLE",
        type=output_path,
        required=True,
        help="the folder of the bundle; an existing bundle is replaced, a folder with anything else in it never",
    )
    parser.add_argument(
        "--base",
        metavar="CHECKPOINT",
        type=Path,
        help="the checkpoint that CHECKPOINT began from, if CHECKPOINT holds only a part of a model, such as a "
        "fine-tuned decoder; the other parts are taken from it",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="fail unless the checkpoint holds this family or variant, for example vit_b",
    )
    parser.add_argument(
        "--image-size",
        metavar="N",
        type=int,
        help="side of the square model input in pixels (default: that of the checkpoint)",
    )
    parser.add_argument(
        "--lowering",
        metavar="L[,L]",
        type=_lowerings,
        action="accumulate",
        default=("auto",),
        help=f"implementation of the encoder's attention: {', '.join(_LOWERINGS)}; give one for all precisions, or "
        "one for each (default: auto, chosen by model and precision)",
    )
    parser.add_argument(
        "--precision",
        metavar="P[,P]",
        type=words,
        action="accumulate",
        default=("fp32",),
        help="precision of the graphs: fp32 for CPUs, fp16 for GPUs, or fp32,fp16 for both (default: fp32)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Export, with progress on stderr."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SamrtError(
            f"export needs {', '.join(missing)}, not installed here; "
            "run in a checkout of samrt: pip install '.[export]'"
        )
    from samrt_export.pipeline import ExportOptions, export

    options = ExportOptions(
        model=arguments.model,
        image_size=arguments.image_size,
        lowering=arguments.lowering,
        precisions=arguments.precision,
    )
    export(arguments.checkpoint, arguments.output, options, Terminal(sys.stderr), arguments.base)
    return 0


def _lowerings(text: str) -> tuple[str, ...]:
    lowerings = words(text)
    if not set(lowerings) <= set(_LOWERINGS):
        raise argparse.ArgumentTypeError(f"{text!r} is not of {', '.join(_LOWERINGS)}")
    return lowerings
