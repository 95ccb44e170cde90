"""Mask decoder on the CPU, side by side: one point to masks at the original size of a 2250 x 1500 photograph.

samrt: prompt checks, decoder, upscaling and threshold, as `Model.predict` does them. Meta: its own ONNX export of the
decoder (`SamOnnxModel`) in ONNX Runtime, which upscales in the graph, and the threshold. With one mask the two do the
same work but return different masks: samrt the decoder's single-mask output, Meta's graph the best of three.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import models
import numpy as np
import side_by_side

from samrt.backends.importing import import_onnxruntime

HEIGHT, WIDTH = 1500, 2250
POINT = (700.0, 900.0)


def samrt_bundle(cache: Path, three: bool) -> side_by_side.Call:
    import samrt

    model = samrt.load(cache / models.BUNDLE)
    input_size = samrt.ResizeLongestSide.get_preprocess_shape(HEIGHT, WIDTH, model.image_size)
    embedding = samrt.Embedding(models.embedding_input(), (HEIGHT, WIDTH), input_size, model.manifest.model_id)
    point, label = np.array([POINT]), np.array([1])

    def call() -> np.ndarray:
        return model.predict(embedding, point, label, multimask_output=three).masks.astype(np.float32)

    return call


def meta_onnxruntime(cache: Path, three: bool) -> side_by_side.Call:
    onnxruntime = import_onnxruntime()

    path = cache / (models.META_DECODER if three else models.META_DECODER_SINGLE)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    scale = models.IMAGE_SIZE / max(HEIGHT, WIDTH)
    inputs = {
        "image_embeddings": models.embedding_input(),
        "point_coords": np.array([[np.array(POINT) * scale, (0, 0)]], np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, models.LOW_RES_SIZE, models.LOW_RES_SIZE), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
        "orig_im_size": np.array([HEIGHT, WIDTH], np.float32),
    }
    # All four masks, of which the single-mask output comes first; or the one that it chooses by score.
    kept = slice(1, 4) if three else slice(0, 1)

    def call() -> np.ndarray:
        masks = session.run(["masks"], inputs)[0]
        return (masks[0, kept] > 0).astype(np.float32)

    return call


CONTENDERS = {
    "samrt, three masks": partial(samrt_bundle, three=True),
    "Meta's ONNX, all masks": partial(meta_onnxruntime, three=True),
    "samrt, one mask": partial(samrt_bundle, three=False),
    "Meta's ONNX, one mask": partial(meta_onnxruntime, three=False),
}

if __name__ == "__main__":
    side_by_side.main(__file__, CONTENDERS, models.prepare)
