"""`samrt build`."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from samrt.bundle.precisions import PRECISIONS
from samrt.cli.outputs import output_path
from samrt.cli.parser import words
from samrt.cli.terminal import Terminal

DESCRIPTION = """\
Build TensorRT engines from a bundle's graphs and write them to the bundle's folder, where `samrt segment` finds them.

TensorRT builds for the GPU of this machine. TensorRT-RTX needs no GPU and builds for a list of GPUs. If the GPU of
this machine can run the engines, they are compared with the bundle's graphs in ONNX Runtime. If the difference exceeds
the tolerance, they are not installed."""

EPILOG = """\
examples:
  samrt export sam_vit_b_01ec64.pth -o vit_b --precision fp32,fp16
  samrt build vit_b                                                   fp16, for the GPU of this machine
  samrt build vit_b --backend tensorrt_rtx --compute-capability 8.6,8.9    for other GPUs, also without one
  samrt build vit_b --max-prompts 16 --max-points 4                   up to 16 boxes at once, with more memory

Needs TensorRT (on a Jetson: part of JetPack) or TensorRT-RTX (in a checkout of samrt: pip install '.[rtx]')
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    from samrt import BuildOptions

    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="the folder of a bundle")
    parser.add_argument(
        "--backend",
        choices=("auto", "tensorrt", "tensorrt_rtx"),
        default="auto",
        help="which TensorRT (default: auto: tensorrt if it is installed and there is a GPU, else tensorrt_rtx)",
    )
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default="fp16",
        help="of the engines; the bundle must hold it (default: fp16)",
    )
    parser.add_argument(
        "--compute-capability",
        metavar="C[,C]",
        type=_capabilities,
        action="accumulate",
        help="GPUs to build for, TensorRT-RTX only (default: the GPU of this machine; without one, all "
        "GPUs that this version of TensorRT-RTX knows, except 7.5)",
    )
    limits = parser.add_argument_group("limits of one call; higher limits need more memory")
    limits.add_argument("--max-batch", metavar="N", type=int, default=1, help="number of images (default: 1)")
    limits.add_argument("--max-prompts", metavar="N", type=int, default=4, help="number of prompts (default: 4)")
    limits.add_argument(
        "--max-points",
        metavar="N",
        type=int,
        default=16,
        help="number of points of a prompt; a box counts as two (default: 16)",
    )
    parser.add_argument(
        "--workspace",
        metavar="MiB",
        type=int,
        help="limit of TensorRT's scratch memory (default: TensorRT's own limit)",
    )
    parser.add_argument(
        "--memory-limit",
        metavar="MiB",
        type=int,
        help="stop if building an engine takes more memory of this machine (default: nine tenths of the free memory)",
    )
    parser.add_argument(
        "--time-limit",
        metavar="SECONDS",
        type=float,
        default=BuildOptions.time_limit_s,
        help="stop if building an engine takes longer (default: %(default)g)",
    )
    parser.add_argument(
        "--timing-cache",
        metavar="FILE",
        type=output_path,
        help="file of kernel timings, which is used and extended; TensorRT only",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="make the timing cache anew where the file that is there is of another TensorRT or GPU, or is none",
    )


def run(arguments: argparse.Namespace) -> int:
    """Build, with progress on stderr."""
    from samrt import BuildLimits, BuildOptions, BuildRequest, build_bundle

    request = BuildRequest(
        backend=arguments.backend,
        precision=arguments.precision,
        limits=BuildLimits(arguments.max_batch, arguments.max_prompts, arguments.max_points),
        options=BuildOptions(
            arguments.compute_capability,
            arguments.workspace,
            arguments.timing_cache,
            arguments.overwrite,
            arguments.memory_limit,
            arguments.time_limit,
        ),
    )
    build_bundle(arguments.bundle, request, Terminal(sys.stderr))
    return 0


def _capabilities(text: str) -> tuple[str, ...]:
    capabilities = words(text)
    if not all(re.fullmatch(r"\d+\.\d", capability) for capability in capabilities):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of compute capabilities such as 8.6,8.9")
    return capabilities
