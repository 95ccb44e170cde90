"""Segments several objects of one image, one box each, in one call; writes many_boxes.png.

    python examples/many_boxes.py

The image is encoded once. The boxes are a batch: each array of the prompt and of the prediction has a first axis B.
For an image of your own, change PHOTO and BOXES.
"""

from pathlib import Path

import numpy as np
from PIL import Image

import samrt

PHOTO = Path(__file__).parent / "images" / "coffee.jpg"
# Left, top, right, bottom in pixels: the saucer, the cup's rim, the coffee, the handle, the spoon.
BOXES = [(77, 70, 480, 388), (172, 18, 410, 212), (204, 96, 370, 193), (196, 230, 260, 307), (326, 235, 407, 327)]
COLOURS = [(40, 120, 255), (255, 200, 0), (0, 200, 80), (255, 0, 160), (0, 220, 255)]

image = np.asarray(Image.open(PHOTO).convert("RGB"))
with samrt.load() as model:  # the model that comes with samrt; for your own: samrt.load("my_bundle")
    embedding = model.encode(image)
    prediction = model.predict(embedding, box=BOXES, multimask_output=False)

# bool [B, 1, H, W] with one mask for each box
masks = prediction.masks[:, 0]
overlay = image.copy()
for box, mask, colour, iou in zip(BOXES, masks, COLOURS, prediction.iou_predictions[:, 0], strict=True):
    overlay[mask] = overlay[mask] // 2 + np.array(colour, np.uint8) // 2
    print(f"box {box}: {mask.sum()} pixels, predicted IoU {iou:.2f}")
Image.fromarray(overlay).save("many_boxes.png")
print("wrote many_boxes.png")
