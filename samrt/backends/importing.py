"""The one place that imports ONNX Runtime: its telemetry is off unless the user turned it on."""

from __future__ import annotations

import os
from types import ModuleType

# ONNX Runtime 1.32 for Linux reads it when it is imported. On, it writes into $TMPDIR and ~/.cache/Microsoft, and opens
# connections.
TELEMETRY = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> ModuleType:
    """The module, imported with telemetry off where the environment does not say otherwise.

    Raises whatever an import raises.
    """
    os.environ.setdefault(TELEMETRY, "1")
    import onnxruntime

    return onnxruntime  # type: ignore[no-any-return]
