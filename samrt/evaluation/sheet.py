"""A picture of the best, the median and the worst masks of a data set under one kind of prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from samrt.errors import InputError, Remedy
from samrt.evaluation.records import Record
from samrt.evaluation.truths import DataSet, Item, Mask, Truth
from samrt.images import read_image
from samrt.overlay import Marks, Picture, draw_overlay
from samrt.rle import bounding_box, decode
from samrt.visible import visible

COLUMNS = 4
_SIDE, _GAP, _TITLE, _HEADING, _CAPTION = 280, 10, 40, 26, 36
_TRUTH, _RIM, _TEXT = (255, 255, 255), (16, 18, 24), (40, 44, 52)
_MARGIN = 0.25  # around an object, of its longer side


@dataclass(frozen=True)
class Shown:
    """An instance on the sheet: the name of its image, its record, and its score there."""

    image: str
    instance: Record
    iou: float


def choose_shown(read: Callable[[], Iterable[Record]], prompt: str, columns: int = COLUMNS) -> dict[str, list[Shown]]:
    """The best, median and worst instances under a prompt whose masks were kept; ties in the order of the records.

    `read` gives the records, and is called twice: scores are few bytes, the masks of all instances are many.
    """
    scores = []
    for line, record in enumerate(read()):
        for index, instance in enumerate(record["instances"]):
            score = instance["prompts"][prompt]
            scores.append((score["iou"][score["answer"]], line, index))
    scores.sort(key=lambda score: score[0])
    count = min(columns, max(1, len(scores) // 3))
    middle = (len(scores) - count) // 2
    chosen = {"best": scores[-count:][::-1], "median": scores[middle : middle + count], "worst": scores[:count]}
    lines = {line for row in chosen.values() for _, line, _ in row}
    kept = {line: record for line, record in enumerate(read()) if line in lines}
    return {
        heading: [Shown(kept[line]["image"], kept[line]["instances"][index], iou) for iou, line, index in row]
        for heading, row in chosen.items()
    }


def draw_sheet(data_set: DataSet, prompt: str, rows: dict[str, list[Shown]], title: str) -> Picture:
    """Draw the chosen instances: the answer in colour, the truth as a white line, the prompt, and the scores.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        InputError: an image or its annotations cannot be read any more.
    """
    items = {item.name: item for item in data_set.items}
    columns = max(len(row) for row in rows.values())
    row_height = _HEADING + _SIDE + _CAPTION
    # Narrow sheets keep room for the title.
    width = max(columns, 2) * (_SIDE + _GAP) + _GAP
    sheet = Image.new("RGB", (width, _TITLE + len(rows) * row_height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), visible(title), font=ImageFont.load_default(18), fill=_TEXT)
    for index, (heading, shown) in enumerate(rows.items()):
        top = _TITLE + index * row_height
        draw.text((_GAP, top + 4), heading, font=ImageFont.load_default(15), fill=_TEXT)
        for column, each in enumerate(shown):
            left = _GAP + column * (_SIDE + _GAP)
            cell = _draw_cell(items[each.image], each, prompt)
            height, breadth, _ = cell.shape
            place = left + (_SIDE - breadth) // 2, top + _HEADING + (_SIDE - height) // 2
            sheet.paste(Image.fromarray(cell), place)
            score = each.instance["prompts"][prompt]
            lines = [
                f"IoU {each.iou:.3f}  predicted {score['predicted'][score['answer']]:.3f}",
                _shortened(visible(str(each.instance["name"])), 44),
            ]
            for number, line in enumerate(lines):
                draw.text(
                    (left, top + _HEADING + _SIDE + 3 + 15 * number),
                    line,
                    font=ImageFont.load_default(12),
                    fill=_TEXT,
                )
    return np.asarray(sheet)


def _draw_cell(item: Item, shown: Shown, prompt: str) -> Picture:
    """The part of the image around the truth and the answer, its longer side `_SIDE`."""
    image = read_image(item.image)
    truth = _find_truth(item, (image.shape[0], image.shape[1]), shown.instance["name"])
    score = shown.instance["prompts"][prompt]
    answer = decode(score["mask"])
    x, y, width, height = _window(truth, answer)
    cut = slice(y, y + height), slice(x, x + width)
    scale = _SIDE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = cv2.resize(image[cut], size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    marks = _marks(score, shown.instance["box"] if prompt == "box" else None, (x, y), scale)
    drawn = draw_overlay(picture.astype(np.uint8), _scaled(answer[cut], size)[None], prompts=[marks])
    # All that a small picture has of the truth, or thin truths would have no line.
    return _outline(drawn, _scaled(truth.mask()[cut], size, least=0 if scale < 1 else 0.5))


def _find_truth(item: Item, size: tuple[int, int], name: str) -> Truth:
    for truth in item.read(size).instances:
        if truth.name == name:
            return truth
    raise InputError(
        f"{item.image} has no instance {name} any more", Remedy("evaluate again with {restart}", {"restart": True})
    )


def _window(truth: Truth, answer: Mask) -> tuple[int, int, int, int]:
    """x, y, width, height of the part of the image to show."""
    x, y, width, height = bounding_box(truth.mask() | answer)
    margin = max(8, round(_MARGIN * max(width, height)))
    # As square as the image allows, so that thin objects are seen where they are.
    side = max(width, height) + 2 * margin
    left, right = _extent(x + width / 2, side, truth.size[1])
    top, bottom = _extent(y + height / 2, side, truth.size[0])
    return left, top, right - left, bottom - top


def _extent(centre: float, side: int, limit: int) -> tuple[int, int]:
    side = min(side, limit)
    first = min(max(0, round(centre - side / 2)), limit - side)
    return first, first + side


def _scaled(mask: Mask, size: tuple[int, int], least: float = 0.5) -> Mask:
    """A mask at `size` (W, H): the pixels of which more than `least` is in it."""
    smaller = size[0] < mask.shape[1] or size[1] < mask.shape[0]
    resized = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    scaled: Mask = resized > least
    return scaled


def _marks(score: dict[str, Any], box: Sequence[int] | None, origin: tuple[int, int], scale: float) -> Marks:
    """The prompt in pixels of the cell; a point is drawn at the centre of its pixel, a box around its pixels."""
    if box is not None:
        corners = np.array(box, np.float64) - (*origin, *origin) + (0, 0, 1, 1)
        return Marks(box=corners * scale)
    points = np.array(score["points"], np.float64)
    return Marks(points=(points[:, :2] - origin + 0.5) * scale, labels=points[:, 2].astype(np.int32))


def _outline(picture: Picture, truth: Mask) -> Picture:
    drawn: npt.NDArray[np.uint8] = np.ascontiguousarray(picture)
    contours, _ = cv2.findContours(truth.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for colour, thickness in ((_RIM, 3), (_TRUTH, 1)):
        cv2.drawContours(drawn, contours, -1, colour, thickness, cv2.LINE_AA)
    return drawn


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"…{text[-length + 1 :]}"
