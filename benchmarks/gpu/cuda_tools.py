"""Finding programs of CUDA's toolkit."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

# Beside what is on PATH: CUDA's installers, and the wheel nvidia-cuda-sanitizer-api.
_PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
_NSIGHT_COMPUTE = Path("/opt/nvidia/nsight-compute")  # a folder for each version
_WHEEL_PLACES = ("nvidia/cu13/compute-sanitizer", "nvidia/cu12/compute-sanitizer", "nvidia/cuda_sanitizer_api/bin")


def find(name: str) -> Path | None:
    """The program, if it is here. A wheel's is made executable."""
    places = [*_PLACES, *map(str, sorted(_NSIGHT_COMPUTE.glob("*"), reverse=True))]
    on_path = shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))
    if on_path:
        return Path(on_path)
    for folder in (Path(entry) / place for entry in sys.path for place in _WHEEL_PLACES):
        if (folder / name).is_file():
            for file in folder.iterdir():
                file.chmod(file.stat().st_mode | 0o111)
            return folder / name
    return None
