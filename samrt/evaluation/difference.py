"""What another precision or backend costs: the difference of two models' scores on the same instances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samrt.errors import InputError
from samrt.evaluation.journal import RESTART
from samrt.evaluation.metrics import mean
from samrt.evaluation.summary import Column, Table

RESAMPLES = 10_000
CONFIDENCE = 0.95
# With fewer images a percentile interval is too narrow: of 95 % it covers about 93 with 10, 85 with 5, 53 with 2.
LEAST_IMAGES = 10
_SEED = 0
# Resamples that are drawn at once: a few MB for a data set of thousands of images.
_AT_ONCE = 256


@dataclass(frozen=True)
class Difference:
    """Two models' mean IoU over the same instances, and how much the second's is higher.

    Attributes:
        data_set: its name.
        prompt: "box" or "points:N".
        miou: of the first model.
        other_miou: of the second.
        difference: the second's less the first's.
        interval: 95 % bootstrap interval of that; None with fewer than ten images that have instances.
        boundary_difference: the same of boundary IoU.
        boundary_interval: its interval.
    """

    data_set: str
    prompt: str
    miou: float
    other_miou: float
    difference: float
    interval: tuple[float, float] | None
    boundary_difference: float
    boundary_interval: tuple[float, float] | None


def paired_difference(data_set: str, table: Table, other: Table) -> Difference:
    """The difference of two tables of one prompt.

    Raises:
        InputError: they are not of the same instances in the same order.
    """
    if table.instances != other.instances:
        raise InputError(f"the two models' records of {data_set} are not of the same instances", RESTART)
    differences = {name: other.columns[name] - table.columns[name] for name in ("iou", "boundary_iou")}
    return Difference(
        data_set=data_set,
        prompt=table.prompt,
        miou=mean(table.columns["iou"]),
        other_miou=mean(other.columns["iou"]),
        difference=mean(differences["iou"]),
        interval=bootstrap_interval(differences["iou"], table.images),
        boundary_difference=mean(differences["boundary_iou"]),
        boundary_interval=bootstrap_interval(differences["boundary_iou"], table.images),
    )


def bootstrap_interval(
    differences: Column, images: NDArray[np.int64], resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """Percentile interval of the mean of paired differences, with whole images drawn again.

    The instances of an image share its light, its focus and its annotator: drawn one by one they would make the
    interval too narrow (the cluster bootstrap of Field and Welsh, 2007).

    Args:
        differences: float64 [N], of each instance.
        images: int64 [N], the image that it is in.
        resamples: how often as many images as there are are drawn, with replacement and a fixed seed.

    Returns:
        The 2.5th and the 97.5th percentile; None with fewer than `LEAST_IMAGES` images.
    """
    _, which = np.unique(images, return_inverse=True)
    count = int(which.max()) + 1 if which.size else 0
    if count < LEAST_IMAGES:
        return None
    sums, sizes = np.bincount(which, weights=differences), np.bincount(which).astype(np.float64)
    rng = np.random.default_rng(_SEED)
    means = np.empty(resamples)
    for start in range(0, resamples, _AT_ONCE):
        some = means[start : start + _AT_ONCE]
        # How often each image is drawn is all that the mean depends on.
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=len(some))
        some[:] = (drawn @ sums) / (drawn @ sizes)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)
