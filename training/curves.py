"""A training log as a picture."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from samrt.overlay import PALETTE
from samrt.png import write_png

_WIDTH, _HEIGHT, _MARGIN = 640, 420, 56
_PANELS = {
    "loss": ("loss",),
    "mean IoU in training": ("iou_grouping", "iou_box", "iou_point", "iou_oracle", "iou_round2", "iou_round3"),
}


def draw_curves(log: Path, output: Path) -> None:
    """Draw the loss and the masks' IoU over the steps of all stages, stages apart by a line, as a PNG."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    if len(entries) < 2:
        return
    stages = [entry["stage"] for entry in entries]
    borders = [index for index in range(1, len(stages)) if stages[index] != stages[index - 1]]
    panels = [_panel(title, names, entries, borders) for title, names in _PANELS.items()]
    write_png(output, np.concatenate(panels, axis=1))


def _panel(
    title: str, names: tuple[str, ...], entries: list[dict[str, float]], borders: list[int]
) -> NDArray[np.uint8]:
    canvas = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    values = np.array([[entry.get(name, np.nan) for entry in entries] for name in names], np.float64)
    top = 1.0 if len(names) > 1 else float(np.nanmax(values))
    across = np.linspace(_MARGIN, _WIDTH - 16, len(entries))
    for level in np.linspace(0, top, 6):
        y = _row(level, top)
        cv2.line(canvas, (_MARGIN, y), (_WIDTH - 16, y), (225, 225, 225))
        _write(canvas, f"{level:.2g}", (8, y + 5))
    for border in borders:
        cv2.line(canvas, (int(across[border]), 40), (int(across[border]), _HEIGHT - 30), (160, 160, 160))
    for index, (name, line) in enumerate(zip(names, values, strict=True)):
        seen = np.isfinite(line)
        dots = np.stack([across[seen], [_row(value, top) for value in line[seen]]], axis=1)
        cv2.polylines(canvas, [dots.astype(np.int32)], False, PALETTE[index], 2, cv2.LINE_AA)
        if len(names) > 1:
            step = (_WIDTH - _MARGIN) // len(names)
            _write(canvas, name.removeprefix("iou_"), (_MARGIN + step * index, _HEIGHT - 8), PALETTE[index])
    _write(canvas, title, (_MARGIN, 24))
    return canvas


def _row(value: float, top: float) -> int:
    return int(_HEIGHT - 30 - (_HEIGHT - 70) * min(value / top, 1.0))


def _write(
    canvas: NDArray[np.uint8], text: str, place: tuple[int, int], colour: tuple[int, int, int] = (40, 40, 40)
) -> None:
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
