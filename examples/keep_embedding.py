"""Saves an image embedding, so that later prompts skip the slow step; writes coffee.npz and keep_embedding.png.

    python examples/keep_embedding.py    # the first run encodes the image
    python examples/keep_embedding.py    # the second run loads the embedding

An embedding belongs to the model that made it. Another model rejects it with samrt.InputError.
"""

import time
from pathlib import Path

from PIL import Image

import samrt

PHOTO = Path(__file__).parent / "images" / "coffee.jpg"
KEPT = Path("coffee.npz")

with samrt.load() as model:
    start = time.perf_counter()
    if KEPT.exists():
        embedding = samrt.Embedding.load(KEPT)
        step = f"loaded {KEPT}"
    else:
        embedding = model.encode(PHOTO)
        embedding.save(KEPT)
        step = f"encoded {PHOTO.name} and wrote {KEPT}"
    print(f"{step} in {time.perf_counter() - start:.2f} s")

    start = time.perf_counter()
    # Left, top, right, bottom in pixels of the photograph: the cup's rim.
    prediction = model.predict(embedding, box=[172, 18, 410, 212], multimask_output=False)
    print(f"predicted the mask in {time.perf_counter() - start:.2f} s")

Image.fromarray(prediction.masks[0]).save("keep_embedding.png")
print(f"wrote keep_embedding.png: {prediction.masks[0].sum()} pixels, IoU {prediction.iou_predictions[0]:.2f}")
