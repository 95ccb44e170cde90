"""A recipe and data small enough to train in seconds."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from seeded import RELEASED_DECODER, vit_state
from torch import Tensor

from training import train
from training.pack import Picture
from training.recipes import Recipe, Stage

TINY = Recipe(
    width=32,
    depth=2,
    head_dim=16,
    patch=8,
    window=3,  # does not divide the grids of 4 and 8: windows are padded
    global_blocks=(1,),
    stages=(
        Stage(32, images=2, objects=2, steps=3, encoder_lr=1e-3, decoder_lr=0.0, warmup=2, task="grouping"),
        Stage(32, images=2, objects=2, steps=4, encoder_lr=1e-3, decoder_lr=1e-4, warmup=2),
        Stage(64, images=2, objects=3, steps=5, encoder_lr=1e-3, decoder_lr=1e-4, warmup=2, cooldown=3),
    ),
    rounds=(0.5, 0.5),
    sources=(("discs", 1.0),),
)


def decoder_state() -> dict[str, Tensor]:
    """Seeded weights in the layout of LiteMedSAM's neck, prompt encoder and mask decoder."""
    return vit_state(TINY.encoder(64), decoder=replace(RELEASED_DECODER, mlp_dim=128))


def discs(count: int = 3) -> dict[str, list[Picture]]:
    """Bright discs on dark ground; the last of them in a corner."""
    pictures = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 60, (90, 120, 3), dtype=np.uint8)
        ids = np.zeros((90, 120), np.uint8)
        for number, centre in enumerate([(30, 30), (80, 50), (0, 0)], start=1):
            cv2.circle(ids, centre, 18 + seed, number, -1)
        image[ids > 0] += np.uint8(150)
        pictures.append(Picture(tuple(cv2.imencode(".png", pixels)[1] for pixels in (image[:, :, ::-1], ids))))
    return {"discs": pictures}


def write_data_set(folder: Path) -> Path:
    """`discs` as `training.pack` reads them."""
    for kind in ("images", "masks"):
        (folder / "discs" / kind).mkdir(parents=True)
    entries = []
    for number, picture in enumerate(discs()["discs"]):
        cv2.imwrite(str(folder / "discs" / "images" / f"{number}.png"), picture.image[:, :, ::-1])
        cv2.imwrite(str(folder / "discs" / "masks" / f"{number}.png"), picture.id_maps[0])
        entries.append({"file": f"{number}.png", "masks": [f"{number}.png"]})
    (folder / "discs" / "index.json").write_text(json.dumps({"images": entries}))
    return folder


def write_decoder(path: Path) -> Path:
    torch.save(decoder_state(), path)
    return path


def train_tiny(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run training/train.py on the recipe `tiny`, which the fixture `inputs` adds; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["train", "tiny", *words])
    return train.main()
