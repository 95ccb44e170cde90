"""Batches of images and prompted objects, each a function of the seed and the step alone."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from samrt.bundle.contract import resize_shape
from samrt.errors import InputError
from training.augment import disturbed, flipped
from training.held_out import kept_for_training
from training.pack import Picture, unpack
from training.recipes import Recipe, Stage
from training.scales import around_an_object, four_in_one
from training.scenes import scene

_AHEAD = 3  # batches made before they are needed
_NICE = 10  # of the processes that make batches


@dataclass(frozen=True)
class Batch:
    """B images with K objects each; coordinates are (x, y) in pixels of the padded square of side S.

    Attributes:
        images: uint8 [B, 3, S, S] RGB, padded right and below.
        sizes: int64 [B, 2], height and width without the padding.
        targets: uint8 [B, K, L, L], how much of each low-res pixel the object covers, 255 for all of it.
        points: float32 [B, K, 2], on the object.
        boxes: float32 [B, K, 4], around it, x0, y0, x1, y1.
        boxed: bool [B, K], whether the box is the first prompt, else the point.
        rounds: of prompts.
    """

    images: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    targets: NDArray[np.uint8]
    points: NDArray[np.float32]
    boxes: NDArray[np.float32]
    boxed: NDArray[np.bool_]
    rounds: int


@dataclass(frozen=True)
class BatchMaker:
    """Makes any batch of a run from its number; small enough to be sent to other processes, which read the data once.

    Attributes:
        data: what `training.pack` wrote.
        recipe: of the run.
    """

    data: Path
    recipe: Recipe

    def check(self) -> None:
        """Raises InputError where the data cannot be read or lacks a set that the recipe draws from."""
        lacking = [name for name, _ in self.recipe.sources if name not in _pictures(self.data, self.recipe.held_out)]
        if lacking:
            raise InputError(f"{self.data} lacks the data set {lacking[0]}; pack a folder that contains it")

    def __call__(self, stage: int, step: int) -> Batch:
        """The batch of a step, which depends on the recipe's seed, the stage and the step alone."""
        return self.draw(np.random.default_rng([self.recipe.seed, stage, step]), stage)

    def draw(self, rng: np.random.Generator, stage: int) -> Batch:
        """A batch of a stage, drawn with `rng` alone."""
        return make_batch(rng, _pictures(self.data, self.recipe.held_out), self.recipe, self.recipe.stages[stage])


@cache
def _pictures(data: Path, held_out: int) -> dict[str, list[Picture]]:
    cv2.setNumThreads(1)  # the processes that make batches share the cores with each other and with torch
    return kept_for_training(unpack(data), held_out)


class Makers:
    """A thread, or `processes`, that make batches ahead; for all stages of a run, as each process reads the data."""

    def __init__(self, processes: int) -> None:
        self._ahead = _AHEAD + 2 * processes
        # Not forked, as what torch and CUDA hold does not survive that. What compiles or drives a GPU goes before them.
        self._pool: Executor = (
            ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=os.nice, initargs=(_NICE,))
            if processes
            else ThreadPoolExecutor(1)
        )

    def batches(self, make: BatchMaker, stage: int, steps: Iterable[int]) -> Iterator[tuple[int, Batch]]:
        """Each of a stage's `steps` with its batch. The first ones are begun at once, the others as these are taken."""
        numbers = iter(steps)
        queue: deque[tuple[int, Future[Batch]]] = deque()

        def submit(count: int) -> None:
            queue.extend((step, self._pool.submit(make, stage, step)) for step in islice(numbers, count))

        def taken() -> Iterator[tuple[int, Batch]]:
            try:
                while queue:
                    step, batch = queue.popleft()
                    submit(1)
                    yield step, batch.result()
            finally:
                for _, batch in queue:
                    batch.cancel()

        submit(self._ahead)
        return taken()

    def __enter__(self) -> Makers:
        return self

    def __exit__(self, *_: object) -> None:
        # After an early stop, do not wait for batches that are not used.
        self._pool.shutdown(wait=False, cancel_futures=True)


def make_batch(
    rng: np.random.Generator, pictures: Mapping[str, Sequence[Picture]], recipe: Recipe, stage: Stage
) -> Batch:
    """One batch, drawn with `rng` alone."""
    low_res = 4 * stage.side // recipe.patch
    samples = [_sample(rng, pictures, recipe, stage, low_res) for _ in range(stage.images)]
    images, sizes, targets, points, boxes = (np.stack(parts) for parts in zip(*samples, strict=True))
    rounds = 1 + int(rng.choice(len(recipe.rounds), p=recipe.rounds))
    boxed = rng.random(points.shape[:2]) < 0.5
    if stage.task == "familiar":
        rounds, boxed = 1, np.ones_like(boxed)
    return Batch(images, sizes, targets, points, boxes, boxed, rounds)


def _sample(
    rng: np.random.Generator,
    pictures: Mapping[str, Sequence[Picture]],
    recipe: Recipe,
    stage: Stage,
    low_res: int,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    while True:
        drawn = rng.random() < stage.synthetic
        if drawn:
            # Half the side: small pictures, which are enlarged for the model, are as blurred as that.
            image, ids = scene(rng, stage.side if rng.random() < 0.7 else stage.side // 2)
            kind = ""
        else:
            kind, image, ids = _photograph(rng, pictures, recipe)
            choice = rng.random() if stage.zoomed or stage.crowded else 1.0
            if choice < stage.zoomed:
                image, ids = around_an_object(rng, image, ids)
            elif choice < stage.zoomed + stage.crowded:
                others = [_photograph(rng, pictures, recipe)[1:] for _ in range(3)]
                kind, (image, ids) = "", four_in_one(rng, [(image, ids), *others], stage.side)
        image, ids = flipped(rng, *_window(rng, image, ids, whole=0.7 if drawn else 0.4))
        image, ids = letterboxed(image, ids, stage.side)
        labels = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[1:] >= stage.smallest * stage.side**2) + 1
        if labels.size:
            break
    masks = [_object(rng, ids, labels, stage, kind) for _ in range(stage.objects)]
    padded = np.zeros((stage.side, stage.side, 3), np.uint8)
    padded[: image.shape[0], : image.shape[1]] = image if drawn else disturbed(rng, image)
    targets = np.stack([coverage(mask, stage.side, low_res) for mask in masks])
    points = np.stack([_point(rng, mask) for mask in masks])
    boxes = np.stack([_box(rng, mask) for mask in masks])
    return padded.transpose(2, 0, 1), np.array(image.shape[:2]), targets, points, boxes


def _photograph(
    rng: np.random.Generator, pictures: Mapping[str, Sequence[Picture]], recipe: Recipe
) -> tuple[str, NDArray[np.uint8], NDArray[np.uint8]]:
    """A data set's name, a photograph of it and one of its id maps."""
    names, weights = zip(*recipe.sources, strict=True)
    kind = str(rng.choice(names, p=weights))
    picture = pictures[kind][int(rng.integers(len(pictures[kind])))]
    return kind, picture.image, picture.id_maps[int(rng.integers(len(picture.id_maps)))]


def _window(
    rng: np.random.Generator, image: NDArray[np.uint8], ids: NDArray[np.uint8], whole: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A part of the picture, of any shape; with the probability `whole`, all of it."""
    if rng.random() < whole:
        return image, ids
    height, width = (max(32, int(side * rng.uniform(0.35, 1))) for side in ids.shape)
    top, left = (
        int(rng.integers(max(1, side - part + 1))) for side, part in zip(ids.shape, (height, width), strict=True)
    )
    part = slice(top, top + height), slice(left, left + width)
    return image[part], ids[part]


def letterboxed(
    image: NDArray[np.uint8], ids: NDArray[np.uint8], side: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Resized so that the longer side is `side`."""
    height, width = resize_shape(*ids.shape, side)
    if (height, width) == ids.shape:
        return image, ids
    smaller = height < ids.shape[0]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return resized, cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)  # type: ignore[return-value]


def _object(
    rng: np.random.Generator, ids: NDArray[np.uint8], labels: NDArray[np.int64], stage: Stage, kind: str
) -> NDArray[np.uint8]:
    """An object's mask, 0 or 1: a labelled region, a connected part of one, or a whole made of labelled parts."""
    if kind in ("carparts", "clothing") and rng.random() < 0.15:
        whole = (ids > 0).astype(np.uint8)
        if whole.mean() < 0.9:
            return whole
    mask = (ids == rng.choice(labels)).astype(np.uint8)
    if rng.random() < 0.25:
        number, components = cv2.connectedComponents(mask)
        if number > 2:
            areas = np.bincount(components.ravel())
            areas[0] = 0
            chosen = int(rng.choice(number, p=areas / areas.sum()))
            if areas[chosen] >= stage.smallest * stage.side**2:
                return (components == chosen).astype(np.uint8)
    return mask


def coverage(mask: NDArray[np.uint8], side: int, low_res: int) -> NDArray[np.uint8]:
    """How much of each pixel of [low_res, low_res] a mask covers, which is padded to `side`; 255 for all of it."""
    padded = np.zeros((side, side), np.uint8)
    padded[: mask.shape[0], : mask.shape[1]] = 255 * mask
    return cv2.resize(padded, (low_res, low_res), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _point(rng: np.random.Generator, mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A point on the object: the innermost pixel or any pixel, half and half."""
    if rng.random() < 0.5:
        return innermost(mask)
    pixels = np.flatnonzero(mask)
    y, x = divmod(int(rng.choice(pixels)), mask.shape[1])
    return np.array([x, y], np.float32)


def innermost(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The pixel (x, y) that is farthest from what is not the object."""
    x0, y0, x1, y1 = tight_box(mask)
    inside = np.pad(mask[y0 : y1 + 1, x0 : x1 + 1], 1)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return np.array([x0 + x - 1, y0 + y - 1], np.float32)


def _box(rng: np.random.Generator, mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The tight box, or, half and half, its corners displaced by a tenth of its sides, which is SAM's jitter."""
    x0, y0, x1, y1 = box = tight_box(mask)
    if rng.random() < 0.5:
        return np.array(box, np.float32)
    sides = np.array([x1 - x0 + 1, y1 - y0 + 1] * 2)
    limit = 20 / 1024 * max(mask.shape)
    moved = np.array(box) + np.clip(rng.normal(0, 0.1, 4) * sides, -limit, limit)
    height, width = mask.shape
    moved = np.clip(moved, 0, [width - 1, height - 1] * 2)
    low, high = np.minimum(moved[:2], moved[2:]), np.maximum(moved[:2], moved[2:])
    return np.concatenate([low, high]).astype(np.float32)


def tight_box(mask: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the outermost pixels."""
    x, y, width, height = cv2.boundingRect(mask)
    return x, y, x + width - 1, y + height - 1
