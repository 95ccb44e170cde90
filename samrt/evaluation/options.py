"""What an evaluation is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass

from samrt.errors import InputError
from samrt.evaluation.protocol import DEFAULT_PROMPTS


@dataclass(frozen=True)
class Contender:
    """A bundle and what runs it, as `samrt.load` takes them."""

    bundle: str | os.PathLike[str]
    backend: str = "auto"


@dataclass(frozen=True)
class Options:
    """How to evaluate.

    Attributes:
        prompts: "box", "point" or "points:N", N one of 1, 2, 3, 5, 9; several separated by commas.
        images: where the pictures of a COCO JSON file lie, if not near it.
        masks: where the maps of a panoptic JSON file lie, if not in the folder of its name.
        limit: only the first so many images of each data set.
        restart: begin anew where the output folder holds another evaluation.
        overwrite: replace files in the output folder that have the results' names and are not an evaluation's.
        threads: as `samrt.load`, for both models.

    Raises:
        InputError: a value is of another type, or the limit is no number of images.
    """

    prompts: str = DEFAULT_PROMPTS
    images: str | os.PathLike[str] | None = None
    masks: str | os.PathLike[str] | None = None
    limit: int | None = None
    restart: bool = False
    overwrite: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.restart, bool) or not isinstance(self.overwrite, bool):
            raise InputError("restart and overwrite must be True or False")
        if not isinstance(self.prompts, str):
            raise InputError(f"prompts must be text such as {DEFAULT_PROMPTS!r}, not {type(self.prompts).__name__}")
        if self.limit is not None and (type(self.limit) is not int or self.limit < 1):
            raise InputError(f"the limit must be at least 1 image, not {self.limit!r}; leave it out to take all")
