"""The models that are measured: seeded weights, which neither time nor memory depends on, at two sizes.

torch is imported by the functions, so that phases without it start quickly and their memory is their own.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

# The tests' seeded weights and small model are used here too.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

NAMES = ("small", "vit_b")


def chosen(smoke: bool) -> tuple[str, ...]:
    """The models of this run; without a GPU only the small one."""
    return NAMES[:1] if smoke else NAMES


def configs() -> dict[str, tuple[Any, Any]]:
    """`VitConfig` and `DecoderConfig` of each model."""
    from seeded import RELEASED_DECODER, SMALL_VIT, vit_decoder

    from samrt_export.families.sam import RELEASED

    small = replace(SMALL_VIT, depth=2, global_blocks=(1,))  # one block of each kind is quickly traced
    return {"small": (small, vit_decoder(small)), "vit_b": (RELEASED["vit_b"], RELEASED_DECODER)}


def encoder_configs(smoke: bool) -> dict[str, Any]:
    """`VitConfig`s of the encoders that are timed with our kernel, which takes heads of 64 and 80."""
    from samrt_export.families.sam import RELEASED
    from samrt_export.models.config import VitConfig

    if smoke:
        return {"two blocks": VitConfig(64, 16, 64, 2, 64, 64, 32, 3, (1,))}
    return {name: RELEASED[name] for name in ("vit_b", "vit_h")}


def checkpoint(name: str, folder: Path) -> Path:
    """The model's checkpoint in `folder`, written if it is not there."""
    from seeded import seeded_checkpoint

    path = folder / f"{name}.pth"
    vit, decoder = configs()[name]
    return path if path.exists() else seeded_checkpoint(path, vit, decoder=decoder)


def load(path: Path) -> Any:
    """A fresh model from a checkpoint, a `LoadedModel`."""
    from samrt_export.checkpoint import read_checkpoint
    from samrt_export.families import load_model

    return load_model(read_checkpoint(path))
