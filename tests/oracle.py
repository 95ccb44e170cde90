"""Meta's segment_anything 1.0, against which samrt is compared."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from absent import absent
from PIL import Image
from torch import Tensor, nn

from samrt_export.models.config import DecoderConfig, VitConfig


@cache
def segment_anything() -> ModuleType:
    """The package, imported without torchvision, whose wheels do not import beside the CPU build of torch.

    The few functions it takes from there are stood in for while it is imported. Skips the test that asks for it where
    the package is not installed.
    """
    if importlib.util.find_spec("segment_anything") is None:
        absent("segment-anything 1.0, the oracle, is not installed; `make test` installs it")
    stand_ins = _torchvision()
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("segment_anything")
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def meta_sam(state: dict[str, Tensor], vit: VitConfig, decoder: DecoderConfig) -> Any:
    """Meta's `Sam` of these sizes with these weights, loaded strictly: float32, evaluation mode, no gradients."""
    sam = build_meta_sam(vit, decoder)
    sam.load_state_dict(state)
    return sam.eval().requires_grad_(False)


def build_meta_sam(vit: VitConfig, decoder: DecoderConfig) -> Any:
    """Meta's `Sam` of these sizes as its constructors leave it (position tables zero)."""
    modeling = importlib.import_module(f"{segment_anything().__name__}.modeling")
    return modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=vit.image_size,
            patch_size=vit.patch_size,
            embed_dim=vit.embed_dim,
            depth=vit.depth,
            num_heads=vit.num_heads,
            mlp_ratio=vit.mlp_dim / vit.embed_dim,
            out_chans=vit.out_chans,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=vit.window_size,
            global_attn_indexes=vit.global_blocks,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=decoder.embed_dim,
            image_embedding_size=(decoder.embedding_size, decoder.embedding_size),
            input_image_size=(decoder.image_size, decoder.image_size),
            mask_in_chans=decoder.mask_in_chans,
        ),
        mask_decoder=modeling.MaskDecoder(
            num_multimask_outputs=decoder.num_mask_tokens - 1,
            transformer=modeling.TwoWayTransformer(
                depth=decoder.depth,
                embedding_dim=decoder.embed_dim,
                mlp_dim=decoder.mlp_dim,
                num_heads=decoder.num_heads,
            ),
            transformer_dim=decoder.embed_dim,
            iou_head_depth=decoder.iou_head_depth,
            iou_head_hidden_dim=decoder.iou_head_hidden_dim,
        ),
    )


def _torchvision() -> dict[str, ModuleType]:
    functional = ModuleType("torchvision.transforms.functional")
    functional.to_pil_image = Image.fromarray  # type: ignore[attr-defined]
    functional.resize = _resize  # type: ignore[attr-defined]
    boxes = ModuleType("torchvision.ops.boxes")
    boxes.box_area = _box_area  # type: ignore[attr-defined]
    boxes.batched_nms = _batched_nms  # type: ignore[attr-defined]
    packages = {name: ModuleType(name) for name in ("torchvision", "torchvision.transforms", "torchvision.ops")}
    return packages | {module.__name__: module for module in (functional, boxes)}


def _resize(image: Image.Image, size: Sequence[int]) -> Image.Image:
    """torchvision's default for PIL images: bilinear; `size` is (height, width)."""
    height, width = size
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _box_area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _batched_nms(boxes: Tensor, scores: Tensor, categories: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression within each category; indices of what is kept, best first."""
    kept: list[int] = []
    areas = _box_area(boxes)
    for index in torch.argsort(scores, descending=True, stable=True).tolist():
        rivals = torch.tensor([k for k in kept if categories[k] == categories[index]], dtype=torch.long)
        low = torch.maximum(boxes[rivals, :2], boxes[index, :2])
        high = torch.minimum(boxes[rivals, 2:], boxes[index, 2:])
        overlap = (high - low).clamp(min=0).prod(dim=1)
        if not (overlap / (areas[rivals] + areas[index] - overlap) > iou_threshold).any():
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A smooth seeded image with edges: uint8 `[height, width, 3]` RGB."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    image = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    image[height // 4 : height // 2, width // 3 : 2 * width // 3] = (200, 40, 60)
    return image
