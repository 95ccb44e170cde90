"""Bundles of models too large for tests to compare with torch, as `samrt export` does."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from samrt.bundle.manifest import Source
from samrt_export.checkpoint import Checkpoint
from samrt_export.families import LoadedModel, load_model
from samrt_export.forms import describe, export_decoder, export_encoder, form_of, write_manifest
from samrt_export.lowering import resolve


def write_uncompared(folder: Path, loaded: LoadedModel, lowering: str = "auto") -> Path:
    """A bundle as `export` writes it in fp16, but for the comparison with torch, which takes minutes at this size."""
    lowering = resolve(lowering, loaded.sam.image_encoder, "fp16")
    form = form_of(loaded, "fp16", lowering)
    export_encoder(loaded, form, folder)
    export_decoder(loaded, form, folder)
    write_manifest(folder, describe(folder, loaded, Source("seeded.pth", "0" * 64, 1, 1), [form]))
    return folder


def load_state(name: str, state: dict[str, Tensor]) -> LoadedModel:
    return load_model(Checkpoint(Path(f"{name}.pth"), state, sha256="0" * 64, bytes=1), name, None)
