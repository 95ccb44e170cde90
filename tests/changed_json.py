"""JSON with one value changed or taken away."""

from __future__ import annotations

import json
from typing import Any


def changed(text: str, *keys: Any, to: Any = None, delete: bool = False) -> str:
    """`text` with the value at `keys` replaced by `to`, or deleted."""
    data = json.loads(text)
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    if delete:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = to
    return json.dumps(data)
