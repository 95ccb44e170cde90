"""The whole model, and its two halves as they are exported."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from samrt_export.models.config import DecoderConfig
from samrt_export.models.mask_decoder import MaskDecoder
from samrt_export.models.prompt_encoder import PromptEncoder


class Sam(nn.Module):
    """Parameters under the names of Meta's checkpoints: `image_encoder.*`, `prompt_encoder.*`, `mask_decoder.*`."""

    def __init__(self, image_encoder: nn.Module, decoder: DecoderConfig) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = PromptEncoder(decoder)
        self.mask_decoder = MaskDecoder(decoder)


class EncoderGraph(nn.Module):
    """`image` to `image_embeddings`, float32 outside, `dtype` inside, but for the encoder's `float32_parts`."""

    def __init__(self, sam: Sam, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        encoder = sam.image_encoder
        exact = {name: deepcopy(encoder.get_submodule(name)) for name in getattr(encoder, "float32_parts", ())}
        self.image_encoder = encoder.to(dtype)
        for name, part in exact.items():
            encoder.set_submodule(name, part)

    def forward(self, image: Tensor) -> Tensor:
        """float32 `[B, 3, S, S]` to float32 `[B, C, h, w]`."""
        return self.image_encoder(image).float()


class DecoderGraph(nn.Module):
    """Embedding and prompts to masks: the decoder's contract in docs/architecture.md."""

    image_pe: Tensor

    def __init__(self, sam: Sam, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        # The grid's encoding depends on nothing but the checkpoint.
        image_pe = sam.prompt_encoder.pe_layer.of_grid(sam.prompt_encoder.embedding_size)
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder.to(dtype)
        self.register_buffer("image_pe", image_pe.to(dtype))
        self.dtype = dtype

    def forward(
        self, image_embeddings: Tensor, point_coords: Tensor, point_labels: Tensor, mask_input: Tensor, has_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See docs/architecture.md, "Graph contract"."""
        prompt = self.prompt_encoder.embed_points(point_coords, point_labels).to(self.dtype)
        dense = self.prompt_encoder.embed_mask(mask_input, has_mask).to(self.dtype)
        image = image_embeddings.to(self.dtype).flatten(2).transpose(1, 2) + dense
        masks, iou_predictions = self.mask_decoder(image, self.image_pe, prompt)
        return masks.float(), iou_predictions.float()
