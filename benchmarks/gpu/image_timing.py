"""The pre- and postprocessing kernels at a camera's size, each a call on a stream, to be timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from samrt.bundle.contract import Normalization, resize_shape
from samrt.kernels.image import (
    MASK_STATS,
    ImagePlanes,
    MaskGeometry,
    MaskOutputs,
    Preprocessing,
    masks_floor_bytes,
    masks_workspace_bytes,
    prepare_preprocess,
    preprocess,
    preprocess_floor_bytes,
    preprocess_workspace_bytes,
    write_masks,
)
from samrt.kernels.library import Kernels

_META = Normalization("mean_std", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_PIXELS: tuple[Literal["rgb", "nv12_bt601"], ...] = ("rgb", "nv12_bt601")
_PRECISIONS: tuple[Literal["fp16", "fp32"], ...] = ("fp16", "fp32")
_RUNS = 8192  # room for the COCO runs of a mask


@dataclass(frozen=True)
class Sizes:
    """What is timed: the original, the model's input and its logits, and how many masks at once."""

    original: tuple[int, int] = (1080, 1920)
    image_size: int = 1024
    low_res: int = 256
    masks: tuple[int, ...] = (1, 64)


@dataclass(frozen=True)
class Job:
    """One call of a kernel, and the bytes that cannot but cross memory for it; None where the values decide them."""

    name: str
    call: Callable[[], None]
    moved_bytes: int | None


def preprocessing(kernels: Kernels, memory: Any, sizes: Sizes, stream: int) -> Iterator[Job]:
    """Each format of pixels and of results; `memory` is a `guarded_memory.GuardedMemory`."""
    height, width = sizes.original
    out = memory.room(4 * 3 * sizes.image_size**2)
    for pixels in _PIXELS:
        rows = height if pixels == "rgb" else height + height // 2
        pitch = 3 * width if pixels == "rgb" else width
        noise = np.random.default_rng(0).integers(0, 256, (rows, pitch), np.uint8)
        address = memory.put(noise)
        planes = ImagePlanes(address, pitch)
        if pixels != "rgb":
            planes = ImagePlanes(address, pitch, address + height * width, width)
        for precision in _PRECISIONS:
            what = Preprocessing(sizes.original, sizes.image_size, _META, pixels, precision)
            workspace = memory.scratch(preprocess_workspace_bytes(kernels, what))
            prepare_preprocess(kernels, what, workspace, stream)

            def call(what: Any = what, planes: Any = planes, workspace: int = workspace) -> None:
                preprocess(kernels, what, planes, out, workspace, stream)

            yield Job(f"{pixels} to {precision}", call, preprocess_floor_bytes(kernels, what))


def postprocessing(kernels: Kernels, memory: Any, sizes: Sizes, stream: int) -> Iterator[Job]:
    """Masks alone, with their figures, with both and COCO runs, and runs instead of masks, from float32 logits."""
    height, width = sizes.original
    for count in sizes.masks:
        geometry = MaskGeometry(
            count, sizes.low_res, sizes.image_size, resize_shape(height, width, sizes.image_size), sizes.original
        )
        logits = memory.put(_blobs(count, sizes.low_res))
        masks = memory.room(count * height * width)
        stats = memory.room(count * MASK_STATS.itemsize)
        runs = memory.room(4 * count * _RUNS)
        workspace = memory.scratch(masks_workspace_bytes(kernels, geometry))
        forms = {
            "masks": MaskOutputs(masks),
            "masks, figures": MaskOutputs(masks, stats),
            "masks, figures, runs": MaskOutputs(masks, stats, runs, _RUNS),
            "figures, runs": MaskOutputs(0, stats, runs, _RUNS),
        }
        for name, outputs in forms.items():

            def call(
                geometry: Any = geometry, logits: int = logits, outputs: Any = outputs, workspace: int = workspace
            ) -> None:
                write_masks(kernels, geometry, logits, outputs, workspace, stream)

            # Beside masks, runs are few; without, they are most of what is written.
            moved = masks_floor_bytes(kernels, geometry, outputs) if outputs.masks else None
            yield Job(f"{count} to {name}", call, moved)


def _blobs(count: int, side: int) -> NDArray[np.float32]:
    """Logits with a few round masks in each."""
    y, x = np.mgrid[0 : 1 : 1j * side, 0 : 1 : 1j * side]
    frequencies = np.random.default_rng(0).uniform(3, 12, (count, 2))
    return np.stack([12 * np.sin(a * x) * np.cos(b * y) for a, b in frequencies]).astype(np.float32)
