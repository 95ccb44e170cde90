"""The models that the benchmarks run: a seeded ViT-B in Meta's layout, Meta's own exports of it, and our bundle.

Nothing heavy is imported here before it is needed: the contenders' memory is measured.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE_SIZE, EMBEDDING_SHAPE, LOW_RES_SIZE = 1024, (256, 64, 64), 256  # of every released SAM
CHECKPOINT, BUNDLE = "vit_b.pth", "vit_b"
META_ENCODER, META_DECODER, META_DECODER_SINGLE = "meta_encoder.onnx", "meta_decoder.onnx", "meta_decoder_single.onnx"

# The tests' oracle imports Meta's package where torchvision is absent; their seeded weights are used here too.
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))


def meta_vit_b(cache: Path) -> Any:
    """Meta's `Sam` with the benchmark's weights."""
    import torch
    from oracle import meta_sam
    from seeded import RELEASED_DECODER

    from samrt_export.families.sam import RELEASED

    state = torch.load(cache / CHECKPOINT, weights_only=True)
    return meta_sam(state, RELEASED["vit_b"], RELEASED_DECODER)


def image_input() -> NDArray[np.float32]:
    """A normalised image, float32 [1, 3, 1024, 1024]."""
    return np.random.default_rng(0).normal(size=(1, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)


def embedding_input() -> NDArray[np.float32]:
    """An embedding, float32 [1, 256, 64, 64]."""
    return np.random.default_rng(1).normal(size=(1, *EMBEDDING_SHAPE)).astype(np.float32)


def prepare(cache: Path) -> None:
    """Make what is not in the cache yet, or was made by other sources. Takes some minutes the first time."""
    from seeded import RELEASED_DECODER, seeded_checkpoint

    from samrt.files import replacing_file
    from samrt.progress import Lines
    from samrt_export.families.sam import RELEASED
    from samrt_export.pipeline import export

    stamp = cache / "sources.sha256"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == _sources():
        return
    stamp.unlink(missing_ok=True)
    seeded_checkpoint(cache / CHECKPOINT, RELEASED["vit_b"], decoder=RELEASED_DECODER)
    export(cache / CHECKPOINT, cache / BUNDLE, progress=Lines(partial(print, file=sys.stderr, flush=True)))
    print("exporting Meta's decoder and encoder", file=sys.stderr, flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _export_meta(cache)
    with replacing_file(stamp) as fresh:
        fresh.write_text(_sources(), encoding="utf-8")


def _sources() -> str:
    """A digest of all that the models are made from."""
    root = Path(__file__).resolve().parent.parent
    files = [Path(__file__), root / "tests" / "seeded.py", *sorted((root / "export").rglob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _export_meta(cache: Path) -> None:
    import torch

    sam = meta_vit_b(cache)
    from segment_anything.utils.onnx import SamOnnxModel

    samples = {
        "image_embeddings": torch.from_numpy(embedding_input()),
        "point_coords": torch.ones(1, 2, 2),
        "point_labels": torch.ones(1, 2),
        "mask_input": torch.zeros(1, 1, LOW_RES_SIZE, LOW_RES_SIZE),
        "has_mask_input": torch.zeros(1),
        "orig_im_size": torch.tensor([1500.0, 2250.0]),
    }
    for name, single in ((META_DECODER, False), (META_DECODER_SINGLE, True)):
        torch.onnx.export(
            SamOnnxModel(sam, return_single_mask=single),
            tuple(samples.values()),
            cache / name,
            dynamo=False,  # as in Meta's export script
            opset_version=17,
            input_names=list(samples),
            output_names=["masks", "iou_predictions", "low_res_masks"],
            dynamic_axes={"point_coords": {1: "points"}, "point_labels": {1: "points"}},
        )
    image = torch.from_numpy(image_input())
    torch.onnx.export(sam.image_encoder, (image,), cache / META_ENCODER, dynamo=True, opset_version=18, verbose=False)
