"""Segments an object from a pen stroke on it; writes scribble.png, which shows the mask and the stroke.

    python examples/scribble.py

A stroke is a polyline in pixels of the image. A painted mask, bool [H, W], works as well. Strokes that are not on the
object go into `background`.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import samrt

PHOTO = Path(__file__).parent / "images" / "coffee.jpg"
ON_COFFEE = [(230, 150), (290, 110), (340, 150)]

image = np.asarray(Image.open(PHOTO).convert("RGB"))
with samrt.load() as model:
    embedding = model.encode(image)
    # A list with one stroke. The small model of samrt takes the cup from 3 points, and its saucer too from 8.
    scribble = samrt.Scribble(foreground=[ON_COFFEE], max_points=3)
    prediction = model.predict(embedding, scribble=scribble, multimask_output=False)

mask = prediction.masks[0]
overlay = Image.fromarray(np.where(mask[..., None], image, image // 4))
ImageDraw.Draw(overlay).line(ON_COFFEE, fill=(0, 220, 80), width=3)
overlay.save("scribble.png")
print(f"wrote scribble.png: {mask.sum()} pixels, predicted IoU {prediction.iou_predictions[0]:.2f}")
