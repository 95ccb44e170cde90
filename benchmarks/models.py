"""The models that the benchmarks run: a seeded ViT-B in Meta's layout, Meta's own exports of it, and our bundle."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from oracle import meta_sam, segment_anything
from seeded import decoder_for, seeded_checkpoint

from samrt_export.families.sam import RELEASED
from samrt_export.models.config import DecoderConfig
from samrt_export.pipeline import export

VIT_B = RELEASED["vit_b"]
CHECKPOINT, BUNDLE = "vit_b.pth", "vit_b"
PLAIN_ENCODER, META_DECODER = "meta_encoder.onnx", "meta_decoder.onnx"
DECODER_INPUTS = (
    "image_embeddings",
    "point_coords",
    "point_labels",
    "mask_input",
    "has_mask_input",
    "orig_im_size",
)


def decoder_config() -> DecoderConfig:
    return decoder_for(VIT_B.out_chans, VIT_B.image_size, VIT_B.grid)


def meta_vit_b(cache: Path) -> Any:
    """Meta's module with the benchmark's weights."""
    return meta_sam(torch.load(cache / CHECKPOINT, weights_only=True), VIT_B, decoder_config())


def image_input() -> NDArray[np.float32]:
    """A normalised image, float32 [1, 3, 1024, 1024]."""
    return np.random.default_rng(0).normal(size=(1, 3, VIT_B.image_size, VIT_B.image_size)).astype(np.float32)


def prepare(cache: Path) -> None:
    """Make what is not in the cache yet. Takes some minutes the first time."""
    if not (cache / CHECKPOINT).exists():
        seeded_checkpoint(cache / CHECKPOINT, VIT_B)
    if not (cache / BUNDLE).exists():
        export(cache / CHECKPOINT, cache / BUNDLE, progress=lambda line: print(line, file=sys.stderr, flush=True))
    if not (cache / PLAIN_ENCODER).exists():
        print("exporting Meta's encoder and decoder", file=sys.stderr, flush=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _export_meta(cache)


def _export_meta(cache: Path) -> None:
    sam = meta_vit_b(cache)
    embedding = torch.zeros(1, VIT_B.out_chans, VIT_B.grid, VIT_B.grid)
    samples = (torch.ones(1, 2, 2), torch.ones(1, 2), torch.zeros(1, 1, 256, 256), torch.zeros(1))
    segment_anything()
    from segment_anything.utils.onnx import SamOnnxModel

    torch.onnx.export(
        SamOnnxModel(sam, return_single_mask=False),
        (embedding, *samples, torch.tensor([1500.0, 2250.0])),
        cache / META_DECODER,
        dynamo=False,  # what Meta's own export script does
        opset_version=17,
        input_names=list(DECODER_INPUTS),
        output_names=["masks", "iou_predictions", "low_res_masks"],
        dynamic_axes={"point_coords": {1: "points"}, "point_labels": {1: "points"}},
    )
    image = torch.from_numpy(image_input())
    torch.onnx.export(sam.image_encoder, (image,), cache / PLAIN_ENCODER, dynamo=True, opset_version=18, verbose=False)
