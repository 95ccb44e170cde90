"""What `samrt segment` makes of a prediction: JSON, a picture, lines and warnings."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from samrt.cli.outputs import STDOUT
from samrt.cli.prompts import PromptArguments
from samrt.files import replacing_file
from samrt.overlay import Marks, draw_overlay, join_panels
from samrt.png import write_png
from samrt.rle import Expanded, area_and_box

if TYPE_CHECKING:
    from samrt.bundle.manifest import Manifest
    from samrt.decoding import RlePrediction
    from samrt.embedding import Region

# By which samrt's files of masks are known again; the first key.
_FORMAT = "samrt-masks"
MARK = f'"format": "{_FORMAT}"'.encode()


@dataclass(frozen=True, eq=False)
class Results:
    """The masks of B prompts, C of each, as `masks` and `marks` list them.

    Attributes:
        entries: B * C, what the JSON says of each mask.
        scores: float32 [B, C].
        marks: B, the prompts as they are drawn.
    """

    entries: list[dict[str, Any]]
    scores: npt.NDArray[np.float32]
    marks: list[Marks]

    @classmethod
    def of(cls, prediction: RlePrediction, prompts: PromptArguments) -> Results:
        """One prompt comes without the axis of prompts, several with it."""
        count = len(prompts.marks)
        scores = prediction.iou_predictions.reshape(count, -1)
        masks = prediction.masks if count > 1 else [prediction.masks]
        entries = []
        for of_prompt, prompt_scores, description in zip(masks, scores, prompts.descriptions, strict=True):
            for rle, score in zip(of_prompt, prompt_scores, strict=True):
                area, box = area_and_box(rle)
                entries.append(
                    {
                        "prompt": description,
                        "segmentation": rle,
                        "predicted_iou": float(score),
                        "area": area,
                        "bbox": list(box),
                    }
                )
        return cls(entries, scores, prompts.marks)

    def write_json(
        self, path: Path | str, seen: dict[str, Any], bundle: Path, manifest: Manifest, choice: str, overwrite: bool
    ) -> None:
        """Write the masks, after what was `seen` and by which model, to a file or to `STDOUT`.

        Raises:
            OutputError: the file cannot be written, or is there and not samrt's.
        """
        model = {
            "path": str(bundle),
            "family": manifest.family,
            "variant": manifest.variant,
            "image_size": manifest.geometry.encoder_side,
            "backend": choice,
            "checkpoint_sha256": manifest.source.sha256,
        }
        content = {"format": _FORMAT, "format_version": 1, **seen, "bundle": model, "masks": self.entries}
        text = json.dumps(content, indent=1) + "\n"
        if path == STDOUT:
            sys.stdout.write(text)
            return
        with replacing_file(path, None if overwrite else MARK) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def write_picture(self, path: Path, image: npt.NDArray[np.uint8], region: Region | None, overwrite: bool) -> None:
        """Write one panel per output of a prompt, with that output's mask of every prompt in it.

        Raises:
            OutputError: as `write_json`.
        """
        prompts, outputs = self.scores.shape
        panels = []
        for output in range(outputs):
            captions = [f"{score:.2f}" for score in self.scores[:, output]]
            if self.scores.size > 1:
                # The numbers of the printed lines.
                captions = [f"{prompt * outputs + output + 1}  {captions[prompt]}" for prompt in range(prompts)]
            masks = Expanded([entry["segmentation"] for entry in self.entries[output::outputs]])
            panels.append(draw_overlay(image, masks, captions, self.marks, region))
        write_png(path, join_panels(panels), overwrite=overwrite)

    def lines(self) -> Iterator[str]:
        """One line for each mask."""
        for number, entry in enumerate(self.entries, start=1):
            height, width = entry["segmentation"]["size"]
            x, y, box_width, box_height = entry["bbox"]
            yield (
                f"mask {number}: score {entry['predicted_iou']:.3f}, "
                f"area {entry['area']} px ({100 * entry['area'] / (height * width):.1f} %), "
                f"box {x},{y},{x + box_width},{y + box_height}"
            )

    def warnings(self, image: str = "") -> Iterator[str]:
        """One line for each mask that is empty; `image` stands before what it says."""
        for number, entry in enumerate(self.entries, start=1):
            if entry["area"] == 0:
                prompt = entry["prompt"]
                given = ", ".join(f"{_KINDS[kind]} {_said(value)}" for kind, value in prompt.items() if kind in _KINDS)
                if set(prompt) == {"mask"}:
                    remedy = "add a --point on the object or a --box around it: a mask alone is a weak prompt"
                else:
                    remedy = "try another point or box, or a --region around the object"
                yield f"samrt: warning: {image}mask {number}, of {given}, is empty; {remedy}"


_KINDS = {"point_coords": "points", "box": "box", "mask": "mask"}


def _said(value: object) -> str:
    if not isinstance(value, list | tuple):
        return str(value)
    separator = "," if value and isinstance(value[0], float | int) else " "
    return separator.join(f"{each:g}" if isinstance(each, float | int) else _said(each) for each in value)
