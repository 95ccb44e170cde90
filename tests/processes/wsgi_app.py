"""A web application that loads its model once, when it is imported. Run by test_workers.py with gunicorn."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

import samrt

IMAGE = np.arange(40 * 90 * 3, dtype=np.uint32).reshape(40, 90, 3).astype(np.uint8)

model = samrt.load(os.environ["SAMRT_TEST_BUNDLE"])
# Before the fork: the workers share it.
embedding = model.encode(IMAGE)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Answer with the logits of one prompt."""
    content = model.predict(embedding, [[30.0, 20.0]], [1]).low_res_masks.tobytes()
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(content)))])
    return [content]
