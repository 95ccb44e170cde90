"""Pictures of masks: where colours land, and that every size of image works."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from samrt.errors import InputError
from samrt.overlay import PALETTE, Marks, draw_overlay, join_panels


def _photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(90, 190, (height, width, 3)).astype(np.uint8)


def _rectangle(height: int, width: int, y: slice, x: slice) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[y, x] = True
    return mask


def _hue_distance(pixels: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float(np.abs(pixels.astype(float).mean(axis=(0, 1)) - colour).mean())


def test_fills_with_the_masks_own_colour_and_dims_the_rest() -> None:
    image = np.full((200, 300, 3), 140, np.uint8)
    first = _rectangle(200, 300, slice(20, 120), slice(20, 120))
    second = _rectangle(200, 300, slice(60, 180), slice(160, 280))
    picture = draw_overlay(image, np.stack([first, second]))

    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    inside_first, inside_second = picture[50:90, 50:90], picture[90:150, 190:250]
    assert _hue_distance(inside_first, PALETTE[0]) < _hue_distance(inside_first, PALETTE[1])
    assert _hue_distance(inside_second, PALETTE[1]) < _hue_distance(inside_second, PALETTE[0])
    assert picture[190:, :100].max() < 110
    assert (image == 140).all(), "the image given in was changed"


def test_contour_lies_on_the_masks_edge_with_a_dark_rim_on_bright_ground() -> None:
    image = np.full((200, 200, 3), 255, np.uint8)
    picture = draw_overlay(image, _rectangle(200, 200, slice(50, 150), slice(50, 150))[None]).astype(int)

    row = picture[100, 30:70].sum(axis=-1)
    assert abs(int(row.argmin()) + 30 - 49) <= 1
    assert row.min() < 0.75 * row[0]


def test_masks_are_asked_for_one_at_a_time() -> None:
    class Masks(list[np.ndarray]):
        asked = 0

        def __getitem__(self, index: Any) -> Any:
            self.asked += 1
            return super().__getitem__(index)

        def __iter__(self) -> Iterator[np.ndarray]:
            return (self[index] for index in range(len(self)))

    image = _photograph(300, 200)  # more than one strip
    stack = np.stack([_rectangle(300, 200, slice(5, 290), slice(9, 90)), np.zeros((300, 200), bool)])
    stack = np.concatenate([stack, np.random.default_rng(0).random((1, 300, 200)) > 0.5])
    masks, captions = Masks(stack), ["0.10", "0.20", "0.30"]
    np.testing.assert_array_equal(draw_overlay(image, masks, captions), draw_overlay(image, stack, captions))
    assert masks.asked == 2 * len(masks)


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = _photograph(100, 70), np.random.default_rng(0).random((1, 100, 70)) > 0.5
    marks = [Marks(painted=_rectangle(100, 70, slice(10, 90), slice(10, 20)))]
    whole = draw_overlay(image, mask, prompts=marks)
    monkeypatch.setattr("samrt.overlay.shapes._STRIP", 11)
    np.testing.assert_array_equal(draw_overlay(image, mask, prompts=marks), whole)


def test_smaller_mask_is_drawn_over_a_larger_one_whatever_their_order() -> None:
    image = np.full((100, 100, 3), 128, np.uint8)
    large, small = np.ones((100, 100), bool), _rectangle(100, 100, slice(40, 60), slice(40, 60))
    for masks, above, below in (([large, small], PALETTE[1], PALETTE[0]), ([small, large], PALETTE[0], PALETTE[1])):
        pixels = draw_overlay(image, np.stack(masks))[45:55, 45:55]
        assert _hue_distance(pixels, above) < _hue_distance(pixels, below)


def test_points_are_drawn_at_their_pixel_and_tell_foreground_from_background() -> None:
    image = np.full((480, 640, 3), 60, np.uint8)
    marks = Marks(points=np.array([[100, 200], [500, 300]], np.float64), labels=np.array([1, 0], np.int32))
    picture = draw_overlay(image, np.zeros((0, 480, 640), bool), prompts=[marks]).astype(int)

    assert (picture[200, 100] > 240).all(), "the sign's centre is white"
    green, red = picture[200 + 4, 100 + 3], picture[300 + 4, 500 + 3]
    assert green[1] > green[0] + 50
    assert red[0] > red[1] + 50
    # Symmetric about the centre of the named pixel.
    np.testing.assert_array_equal(picture[200, 85:116], picture[200, 85:116][::-1])


def test_a_plus_has_a_vertical_bar_and_a_minus_has_none() -> None:
    image = np.full((480, 640, 3), 60, np.uint8)
    marks = Marks(points=np.array([[100, 200], [500, 300]], np.float64), labels=np.array([1, 0], np.int32))
    picture = draw_overlay(image, np.zeros((0, 480, 640), bool), prompts=[marks]).astype(int)

    assert picture[197, 100].min() > 200
    assert picture[297, 500].min() < 100


def test_box_is_drawn_in_the_colour_of_its_mask_even_at_the_images_border() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    masks = np.zeros((2, 100, 100), bool)
    boxes = [Marks(box=np.array([20, 30, 60, 70], np.float64)), Marks(box=np.array([0, 0, 100, 100], np.float32))]
    picture = draw_overlay(image, masks, prompts=boxes)

    assert tuple(picture[29, 40]) == PALETTE[0]
    assert tuple(picture[70, 40]) == PALETTE[0]
    assert tuple(picture[50, 19]) == PALETTE[0]
    assert tuple(picture[50, 60]) == PALETTE[0]
    assert tuple(picture[0, 50]) == PALETTE[1]
    assert tuple(picture[50, 0]) == PALETTE[1]
    assert tuple(picture[50, 99]) == PALETTE[1]
    assert tuple(picture[99, 50]) == PALETTE[1]


def test_painted_mask_is_shown_in_the_foreground_colour() -> None:
    image = np.full((100, 100, 3), 128, np.uint8)
    painted = _rectangle(100, 100, slice(40, 60), slice(10, 90))
    picture = draw_overlay(image, np.zeros((1, 100, 100), bool), prompts=[Marks(painted=painted)]).astype(int)

    assert picture[50, 50, 1] > picture[50, 50, 0] + 40
    assert abs(picture[10, 50, 1] - picture[10, 50, 0]) < 5


def test_captions_of_neighbours_do_not_hide_each_other() -> None:
    image = np.full((300, 400, 3), 200, np.uint8)
    first = _rectangle(300, 400, slice(100, 140), slice(150, 200))

    def plates(second: np.ndarray) -> int:
        masks = np.stack([first, second])
        difference = draw_overlay(image, masks) != draw_overlay(image, masks, ["0.91", "0.82"])
        return int(difference.any(axis=-1).sum())

    far = plates(_rectangle(300, 400, slice(240, 280), slice(20, 70)))
    near = plates(_rectangle(300, 400, slice(102, 142), slice(160, 210)))
    assert near > 0.95 * far > 500


def test_caption_is_left_out_where_it_does_not_fit() -> None:
    for shape in ((20, 200), (200, 60)):
        image, masks = _photograph(*shape), np.ones((1, *shape), bool)
        np.testing.assert_array_equal(draw_overlay(image, masks, ["0.9999"]), draw_overlay(image, masks))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (17, 16), (40, 300), (301, 40)])
@pytest.mark.parametrize("fill", ["empty", "full", "some"])
def test_draws_on_images_of_any_size(shape: tuple[int, int], fill: str) -> None:
    height, width = shape
    mask = {"empty": np.zeros(shape, bool), "full": np.ones(shape, bool), "some": np.indices(shape).sum(0) % 3 == 0}[
        fill
    ]
    marks = Marks(
        points=np.array([[0, 0], [width - 1, height - 1]], np.float64),
        labels=np.array([1, 0], np.int32),
        box=np.array([0, 0, width, height], np.float64),
        painted=mask,
    )
    picture = draw_overlay(_photograph(height, width), np.stack([mask, ~mask]), ["1  0.9", "2  0.8"], [marks])
    assert picture.shape == (height, width, 3)


def test_lines_grow_with_the_image() -> None:
    def ring(size: int) -> int:
        image = np.full((size, size, 3), 255, np.uint8)
        quarter = size // 4
        mask = _rectangle(size, size, slice(quarter, 3 * quarter), slice(quarter, 3 * quarter))
        row = draw_overlay(image, mask[None])[size // 2, : size // 2].astype(int).sum(axis=-1)
        return int((row < row[0] - 60).sum())

    assert ring(1600) >= 2 * ring(400) > 0


def test_panels_stand_side_by_side_and_panoramas_one_below_the_other() -> None:
    pictures = [np.full((30, 40, 3), value, np.uint8) for value in (10, 20, 30)]
    joined = join_panels(pictures)
    assert joined.shape[0] == 30
    assert joined.shape[1] > 120
    assert [joined[15, x, 0] for x in (5, joined.shape[1] // 2, joined.shape[1] - 5)] == [10, 20, 30]
    assert (joined[:, 40] == 255).all()

    wide = join_panels([np.zeros((10, 40, 3), np.uint8)] * 3)
    assert wide.shape[1] == 40
    assert wide.shape[0] > 30


@pytest.mark.parametrize(
    ("image", "masks", "captions", "message"),
    [
        (np.zeros((4, 5), np.uint8), np.zeros((1, 4, 5), bool), (), "image must be"),
        (np.zeros((4, 5, 3), np.float64), np.zeros((1, 4, 5), bool), (), "image must be"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), bool), (), "masks must be"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((1, 5, 4), bool), (), "masks must be"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((1, 4, 5), np.uint8), (), "masks must be"),
        (np.zeros((4, 5, 3), np.uint8), [np.zeros((4, 5), bool), np.zeros((3, 5), bool)], (), r"one is bool \[3, 5\]"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((2, 4, 5), bool), ("a",), "1 captions for 2 masks"),
    ],
)
def test_refuses_shapes_that_do_not_fit(
    image: np.ndarray, masks: np.ndarray, captions: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        draw_overlay(image, masks, captions)


def test_a_region_is_framed_in_white() -> None:
    image = np.full((60, 90, 3), 100, np.uint8)
    framed = draw_overlay(image, np.zeros((1, 60, 90), bool), region=(20, 10, 80, 50))
    plain = draw_overlay(image, np.zeros((1, 60, 90), bool))
    inner = np.s_[14:46, 24:76]
    np.testing.assert_array_equal(framed[inner], plain[inner])
    for line in (framed[8:13, 24:76], framed[48:53, 24:76]):
        assert (line.max(axis=0) == 255).all()
    for line in (framed[14:46, 18:23], framed[14:46, 78:83]):
        assert (line.max(axis=1) == 255).all()
