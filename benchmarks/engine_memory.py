"""The memory that ViT-B's fp16 engines need for more images, prompts and points at once, as TensorRT-RTX reports it.

Nothing runs, so no GPU is needed. The weights are random, because the builder does not use their values.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from report import add_output, write_report

from samrt.engines.builder.engine import BuildOptions, build_engine
from samrt.engines.flavours import import_flavour
from samrt.engines.profiles import BuildLimits, ranges
from samrt.progress import SILENT
from samrt_export.checkpoint import Checkpoint
from samrt_export.families import load_model
from samrt_export.families.sam import RELEASED
from samrt_export.forms import export_decoder, export_encoder, form_of

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

CASES = {
    "image_encoder": [BuildLimits(max_batch=images) for images in (1, 4)],
    "mask_decoder": [
        BuildLimits(max_prompts=prompts, max_points=points)
        for prompts, points in ((1, 2), (4, 16), (8, 16), (16, 16), (64, 2))
    ],
}
TARGET = BuildOptions(compute_capabilities=("8.6",))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_output(parser)
    arguments = parser.parse_args()
    from seeded import RELEASED_DECODER, vit_state

    flavour = import_flavour("tensorrt_rtx")
    state = vit_state(RELEASED["vit_b"], decoder=RELEASED_DECODER)
    loaded = load_model(Checkpoint(Path("vit_b.pth"), state, sha256="0" * 64, bytes=1))
    form = form_of(loaded, "fp16", "augmented")
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        export_encoder(loaded, form, Path(folder))
        export_decoder(loaded, form, Path(folder))
        for name, cases in CASES.items():
            graph = form.graphs[name]
            for limits in cases:
                built = build_engine(flavour, Path(folder, graph.file), ranges(graph, limits), TARGET, SILENT)
                shapes = {tensor: list(each.maximum) for tensor, each in ranges(graph, limits).items()}
                figures.append({"engine": name, "largest_inputs": shapes, **built.memory})
                print(f"{name} {vars(limits)}: {built.memory['scratch_bytes'] / 1e6:.0f} MB of scratch", flush=True)
    report = {
        "benchmark": "engine_memory",
        "runtime": flavour.title,
        "compute_capability": "8.6",
        "model": "ViT-B at 1024, fp16-augmented",
        "engines": figures,
    }
    if arguments.output:
        write_report(arguments.output, report)


if __name__ == "__main__":
    main()
