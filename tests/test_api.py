"""The public names of samrt and samrt_export: all there, documented, and cheap until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import samrt


@pytest.mark.parametrize("name", [name for name in samrt.__all__ if name != "__version__"])
def test_every_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(samrt, name)
    assert found.__name__ == name
    assert found.__doc__
    assert name in dir(samrt)


def test_every_late_name_is_public() -> None:
    assert set(samrt._HOMES) <= set(samrt.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = samrt.nothing


def test_export_is_public_too() -> None:
    import samrt_export
    from samrt_export import pipeline

    assert (samrt_export.export, samrt_export.ExportOptions) == (pipeline.export, pipeline.ExportOptions)
    assert {"ExportOptions", "export"} <= set(dir(samrt_export))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = samrt_export.nothing


def test_importing_either_package_imports_nothing_heavy() -> None:
    heavy = {"numpy", "cv2", "PIL", "onnxruntime", "torch", "onnx", "tensorrt", "tensorrt_rtx", "cuda"}
    code = f"import sys, samrt, samrt_export; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
