"""The prompts of `samrt segment`: from the words of the command line to what `Model.predict` takes."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samrt.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from samrt.overlay import Marks


@dataclass(frozen=True)
class PromptArguments:
    """The prompts of one call: as `Model.predict` takes them, and per prompt as they are drawn and written down."""

    keywords: dict[str, Any]
    marks: list[Marks]
    descriptions: list[dict[str, object]]


def parse_point(text: str) -> tuple[float, float, int]:
    """(x, y, label) of the words "X,Y" or "X,Y,LABEL"."""
    words = text.split(",")
    if len(words) not in (2, 3) or (len(words) == 3 and words[2].strip() not in ("0", "1")):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not X,Y or X,Y,LABEL with label 1 (object) or 0 (not the object)"
        )
    x, y = _floats(text, words[:2])
    return x, y, int(words[2]) if len(words) == 3 else 1


def parse_box(text: str) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) of the words "X0,Y0,X1,Y1"."""
    words = text.split(",")
    if len(words) != 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not X0,Y0,X1,Y1")
    x0, y0, x1, y1 = _floats(text, words)
    return x0, y0, x1, y1


def parse_region(text: str) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) of the words "X0,Y0,X1,Y1", whole numbers."""
    words = text.split(",")
    try:
        x0, y0, x1, y1 = map(int, words)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not X0,Y0,X1,Y1 in whole numbers") from None
    return x0, y0, x1, y1


def _floats(text: str, words: list[str]) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} holds something that is not a number") from None


def check_prompt_arguments(arguments: argparse.Namespace) -> None:
    """Refuse, as wrong usage, prompts that are absent or cannot go together. The rest is `Model.predict`'s to judge."""
    if not (arguments.point or arguments.box or arguments.mask):
        arguments.refuse("nothing to segment: give at least one of --point, --box and --mask")
    if len(arguments.box) > 1 and (arguments.point or arguments.mask):
        arguments.refuse(
            f"{len(arguments.box)} boxes are {len(arguments.box)} objects, and it is not clear which of them --point "
            "and --mask belong to; call samrt segment once per object, or give the boxes alone"
        )


def read_prompt_arguments(arguments: argparse.Namespace) -> PromptArguments:
    """The prompts of a call: several boxes are a prompt each, everything else together is one.

    Raises:
        InputError: the file of --mask cannot be used.
    """
    import numpy as np

    from samrt.overlay import Marks

    boxes = np.array(arguments.box, np.float64)
    if len(boxes) > 1:
        return PromptArguments(
            {"box": boxes}, [Marks(box=box) for box in boxes], [{"box": box} for box in arguments.box]
        )
    keywords: dict[str, Any] = {}
    description: dict[str, object] = {}
    painted = None
    if arguments.point:
        keywords["point_coords"] = np.array([point[:2] for point in arguments.point], np.float64)
        keywords["point_labels"] = np.array([point[2] for point in arguments.point], np.int32)
        description["point_coords"] = [point[:2] for point in arguments.point]
        description["point_labels"] = [point[2] for point in arguments.point]
    if arguments.box:
        keywords["box"] = boxes[0]
        description["box"] = arguments.box[0]
    if arguments.mask:
        description["mask"] = str(arguments.mask)
        if arguments.mask.suffix.lower() == ".npy":
            keywords["mask_input"] = _read_logits(arguments.mask)
        else:
            from samrt.images.painted import read_painted
            from samrt.scribble import Scribble

            painted = read_painted(arguments.mask)
            keywords["scribble"] = Scribble(painted)
    marks = Marks(keywords.get("point_coords"), keywords.get("point_labels"), keywords.get("box"), painted)
    return PromptArguments(keywords, [marks], [description])


def _read_logits(path: Path) -> npt.NDArray[Any]:
    import numpy as np

    try:
        # Mapped, so that a header which declares more than the file holds takes no memory.
        logits = np.load(path, mmap_mode="r", allow_pickle=False)
    except MemoryError as error:
        raise InputError(f"not enough memory to read mask logits from {path} ({error}); they are [1, L, L]") from error
    except OSError as error:
        reason = error.strerror or "it is damaged"
        raise InputError(f"cannot read mask logits from {path}: {reason}; check the path and permissions") from error
    except Exception as error:
        # For a damaged header numpy raises anything, from tokenize's errors to TypeError.
        # Whatever is no array may be a pickle to numpy, which then says how to run it.
        reason = "it is no array of numbers" if "pickle" in str(error) else str(error)
        raise InputError(f"cannot read mask logits from {path}: {reason}; save them with numpy.save") from error
    if not isinstance(logits, np.ndarray):
        raise InputError(f"{path} holds several arrays; save one prediction's low_res_masks [1, L, L] with numpy.save")
    return logits
