"""Mask decoder on the CPU, side by side: one point to three masks at the original size of a 2250 x 1500 photograph.

samrt: prompt checks, decoder, upscaling and threshold, as `Model.predict` does them. Meta: its own ONNX export of the
decoder (`SamOnnxModel`) in ONNX Runtime, which upscales in the graph, and the threshold.
"""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import side_by_side

HEIGHT, WIDTH = 1500, 2250
POINT = (700.0, 900.0)


def samrt_bundle(cache: Path) -> side_by_side.Call:
    import samrt

    model = samrt.load(cache / models.BUNDLE)
    input_size = samrt.ResizeLongestSide(model.image_size).apply_image(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).shape[:2]
    embedding = samrt.Embedding(models.embedding_input(), (HEIGHT, WIDTH), input_size, model.manifest.model_id)
    point, label = np.array([POINT]), np.array([1])

    def call() -> np.ndarray:
        return model.predict(embedding, point, label).masks.astype(np.float32)

    return call


def meta_onnxruntime(cache: Path) -> side_by_side.Call:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(cache / models.META_DECODER), providers=["CPUExecutionProvider"])
    scale = models.IMAGE_SIZE / max(HEIGHT, WIDTH)
    inputs = {
        "image_embeddings": models.embedding_input(),
        "point_coords": np.array([[np.array(POINT) * scale, (0, 0)]], np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, models.LOW_RES_SIZE, models.LOW_RES_SIZE), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
        "orig_im_size": np.array([HEIGHT, WIDTH], np.float32),
    }

    def call() -> np.ndarray:
        masks = session.run(["masks"], inputs)[0]
        # It makes all four masks; the single-mask output comes first.
        return (masks[0, 1:] > 0).astype(np.float32)

    return call


CONTENDERS = {"samrt": samrt_bundle, "Meta's ONNX, ONNX Runtime": meta_onnxruntime}

if __name__ == "__main__":
    side_by_side.main(__file__, CONTENDERS, models.prepare)
