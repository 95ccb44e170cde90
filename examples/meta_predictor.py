"""Runs code written for Meta's segment_anything with samrt; writes meta_predictor.png.

    python examples/meta_predictor.py

Two lines differ from the original; comments mark them. The other lines are Meta's calls: set an image, predict three
masks for one point, take the best, and predict again with its logits and a second point.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from samrt import SamPredictor, load  # was: from segment_anything import SamPredictor, sam_model_registry

PHOTO = Path(__file__).parent / "images" / "coffee.jpg"

predictor = SamPredictor(load())  # was: SamPredictor(sam_model_registry["vit_b"](checkpoint="sam_vit_b_01ec64.pth"))

image = np.array(Image.open(PHOTO).convert("RGB"))
predictor.set_image(image)

# (x, y) in pixels of the image: the coffee. One point may mean the coffee or the cup, so three masks come back.
point = np.array([[290, 150]])
masks, scores, logits = predictor.predict(point_coords=point, point_labels=np.array([1]), multimask_output=True)
for mask, score in zip(masks, scores, strict=True):
    print(f"one point: {mask.sum()} pixels, predicted IoU {score:.2f}")

# Use the logits of the best mask, the cup, as a prompt, with a second point: its pieces grow together.
best = int(np.argmax(scores))
masks, scores, _ = predictor.predict(
    point_coords=np.array([[290, 150], [290, 105]]),
    point_labels=np.array([1, 1]),
    mask_input=logits[best : best + 1],
    multimask_output=False,
)
print(f"refined: {masks[0].sum()} pixels, predicted IoU {scores[0]:.2f}")
Image.fromarray(np.where(masks[0][..., None], image, image // 4)).save("meta_predictor.png")
print("wrote meta_predictor.png")
