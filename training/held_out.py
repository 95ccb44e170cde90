"""The held-out photographs: no step sees them. They are used to choose recipes; the evaluation sets never are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from training.pack import Picture

Pictures = Mapping[str, list[Picture]]
_SEED = 22  # every recipe holds out the same photographs


def kept_for_training(pictures: Pictures, number: int) -> dict[str, list[Picture]]:
    """All but those held out."""
    return _chosen(pictures, number, held_out=False)


def held_out(pictures: Pictures, number: int) -> dict[str, list[Picture]]:
    """Those held out: `number` of each data set."""
    return _chosen(pictures, number, held_out=True)


def _chosen(pictures: Pictures, number: int, held_out: bool) -> dict[str, list[Picture]]:
    chosen = {}
    for name, members in pictures.items():
        order = np.random.default_rng(_SEED).permutation(len(members))
        apart = set(order[:number].tolist())
        chosen[name] = [picture for index, picture in enumerate(members) if (index in apart) == held_out]
    return chosen
