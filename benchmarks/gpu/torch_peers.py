"""Timing torch's encoder and decoder: checked against float32 first, then with and without a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import torch
from device_input import seeded_image, seeded_prompts
from driver import Driver
from timing import Clock
from torch import nn
from torch_forms import Attend, materialised, with_attention
from work import Work

from samrt_export.models.sam import DecoderGraph, EncoderGraph

_SECONDS, _SMOKE_SECONDS = 2.0, 0.3
_POINTS = 2


class Peers:
    """The model on the device in half precision (float32 without a GPU), and what float32 makes of one image."""

    def __init__(self, work: Work) -> None:
        if work.smoke:
            torch.set_num_threads(1)  # others may be at work on a small machine
        self._driver = None if work.smoke else Driver()
        self._device = "cpu" if work.smoke else "cuda"
        self._dtype = torch.float32 if work.smoke else torch.float16
        self._checkpoint: Path = models.checkpoint(models.chosen(work.smoke)[-1], work.folder)
        loaded = models.load(self._checkpoint)
        self._image = torch.from_numpy(seeded_image(loaded.image_size)).to(self._device)
        # On sm_80 and later torch's float32 convolutions use TF32 unless told otherwise.
        torch.backends.cudnn.allow_tf32 = False
        with torch.inference_mode():
            reference = EncoderGraph(loaded.sam).to(self._device)
            with_attention(reference.image_encoder, materialised)
            self._expected = reference(self._image)

    def encoder(self, attend: Attend, prepare: Callable[[nn.Module], Any] = lambda module: module) -> dict[str, Any]:
        """Times of the encoder with one form of attention; `prepare` may compile it."""
        module = EncoderGraph(models.load(self._checkpoint).sam, self._dtype)
        with_attention(module.image_encoder, attend)
        module.to(self._device)
        module.image_encoder.to(self._dtype)
        return self._measure(prepare(module), (self._image,), self._expected)

    def decoder(self, prepare: Callable[[nn.Module], Any] = lambda module: module) -> dict[str, Any]:
        """Times of the decoder, one prompt of two points."""
        loaded = models.load(self._checkpoint)
        prompts = seeded_prompts(loaded.image_size, loaded.contract.geometry.low_res_side, 1, _POINTS)
        inputs = (self._expected, *(torch.from_numpy(value).to(self._device) for value in prompts.values()))
        with torch.inference_mode():
            expected = DecoderGraph(models.load(self._checkpoint).sam).to(self._device)(*inputs)[0]
        module = DecoderGraph(loaded.sam, self._dtype).to(self._device)
        return self._measure(prepare(module), inputs, expected)

    def _measure(self, module: Any, inputs: tuple[Any, ...], expected: Any) -> dict[str, Any]:
        with torch.inference_mode():
            result = module(*inputs)
            first = result[0] if isinstance(result, tuple) else result
            difference = float((first - expected).norm() / expected.norm())
            found: dict[str, Any] = {"relative_l2_to_float32": difference}
            if self._driver is None:
                found["as called"] = Clock(None).measure(lambda: module(*inputs), _SMOKE_SECONDS)
                return found
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            torch.cuda.synchronize()
            stream = torch.cuda.Stream()
            clock = Clock(self._driver, stream.cuda_stream)
            with torch.cuda.stream(stream):
                found["as called"] = clock.measure(lambda: module(*inputs), _SECONDS)
                found["working_memory_bytes"] = torch.cuda.max_memory_allocated() - before
                try:
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph, stream=stream):
                        module(*inputs)
                    found["in a CUDA graph"] = clock.measure(graph.replay, _SECONDS)
                except RuntimeError as error:
                    found["in a CUDA graph"] = {"error": str(error)[:400]}
        return found
