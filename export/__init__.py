"""Checkpoints to bundles, for developers: needs torch and onnx (`pip install '.[export]'` in a checkout of samrt).

    from samrt import Lines
    from samrt_export import ExportOptions, export

    options = ExportOptions(precisions=("fp32", "fp16"))
    manifest = export("sam_vit_b_01ec64.pth", "vit_b", options, progress=Lines(print))

The names below are imported when they are first used, and torch with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samrt_export.pipeline import ExportOptions, export

__all__ = ["ExportOptions", "export"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from samrt_export import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'samrt_export' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
