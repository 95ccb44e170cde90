"""Checks of samrt_preprocess against Pillow and samrt.geometry, on any build of the kernel library.

    python tests/kernels/check_image.py LIBRARY [NAME ...]

Runs the checks of these names, or all, on the host build. `CHECKS` are the same for another device.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import PIL.Image
from check_main import check_main
from guarded_memory import Device, GuardedMemory
from numpy.typing import NDArray
from refusals import expect_refusal

from samrt.bundle.contract import Geometry, Normalization
from samrt.geometry import normalize_and_pad, resize_image
from samrt.kernels.image import (
    ImagePlanes,
    PreprocessArgs,
    Preprocessing,
    prepare_preprocess,
    preprocess,
    preprocess_floor_bytes,
    preprocess_workspace_bytes,
)
from samrt.kernels.library import Kernels

Check = Callable[[Kernels, Device], None]

META = Normalization("mean_std", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
MIN_MAX = Normalization("min_max")


@dataclass(frozen=True)
class Case:
    """One image: its size, what it becomes, and how it lies in memory (`pad` bytes after each row, and an offset)."""

    what: Preprocessing
    pad: int = 0
    offset: int = 0


def case(
    height: int, width: int, image_size: int, *, pad: int = 0, offset: int = 0, norm: Normalization = META, **what: Any
) -> Case:
    return Case(Preprocessing((height, width), image_size, norm, **what), pad, offset)


CASES = {
    "same size": case(64, 64, 64),
    "down a little": case(70, 75, 64),
    "down by 7.3": case(300, 467, 64),
    "down by 37, in pieces": case(1100, 2400, 65),
    "up by 3, odd sizes": case(17, 31, 93),
    "one row": case(1, 50, 64),
    "one row, down": case(1, 500, 64),
    "one column": case(77, 1, 64),
    "one pixel": case(1, 1, 33),
    "height stays": case(40, 64, 64),
    "aspect 200": case(3, 600, 64),
    # Pillow 13 resizes these down their columns first, 12.2 and 12.3 the sliver alone.
    "sliver": case(601, 5, 64),
    "tall": case(420, 90, 64),
    "tall, in pieces": case(2500, 70, 65),
    "tall, bgr, unaligned, fp16, min and max": case(
        301, 67, 70, pad=2, offset=3, norm=MIN_MAX, pixels="bgr", precision="fp16"
    ),
    "tall, nv12": case(300, 42, 90, pixels="nv12_bt601"),
    "tall, nv12, fp16": case(300, 42, 90, pixels="nv12_bt601", precision="fp16"),
    "just not tall": case(300, 149, 100),
    "odd rows, unaligned": case(101, 133, 96),
    "rows padded by 5": case(50, 61, 64, pad=5),
    "rows aligned by padding": case(50, 61, 64, pad=1),
    "address off by one": case(50, 64, 64, offset=1),
    "bgr": case(90, 120, 64, pixels="bgr"),
    "fp16": case(90, 120, 64, precision="fp16"),
    "fp16, odd side": case(90, 119, 63, precision="fp16"),
    "min and max": case(90, 70, 64, norm=MIN_MAX),
    "min and max, fp16, bgr": case(90, 70, 130, norm=MIN_MAX, pixels="bgr", precision="fp16"),
    "nv12": case(90, 122, 64, pixels="nv12_bt601"),
    "nv12, 709, fp16": case(62, 128, 64, pixels="nv12_bt709", precision="fp16", pad=12),
    "nv12, unaligned": case(64, 70, 128, pixels="nv12_bt601", pad=3, offset=1),
    # The kernel with tall tiles is for inputs of half a megapixel.
    "tall tiles": case(24, 40, 1024),
    "tall tiles, fp16": case(24, 40, 1024, precision="fp16"),
    "tall tiles, nv12": case(40, 26, 1024, pixels="nv12_bt601"),
    "tall tiles, nv12, fp16": case(40, 26, 1024, pixels="nv12_bt709", precision="fp16"),
}


def nv12_to_rgb(luma: NDArray[np.uint8], chroma: NDArray[np.uint8], standard: str) -> NDArray[np.uint8]:
    """uint8 [H, W] and [H / 2, W / 2, 2] to RGB [H, W, 3]: OpenCV's for BT.601; for BT.709 our own definition."""
    if standard == "nv12_bt601":
        height, width = luma.shape
        stacked = np.concatenate([luma, chroma.reshape(height // 2, width)])
        return np.asarray(cv2.cvtColor(stacked, cv2.COLOR_YUV2RGB_NV12), np.uint8)
    full = chroma.repeat(2, axis=0).repeat(2, axis=1).astype(np.int64) - 128
    u, v = full[..., 0], full[..., 1]
    y = np.maximum(luma.astype(np.int64) - 16, 0) * 1220945 + 2**19
    channels = (y + 1879825 * v, y - 223607 * u - 558796 * v, y + 2215014 * u)
    return np.clip(np.stack(channels, axis=-1) >> 20, 0, 255).astype(np.uint8)


def random_planes(what: Preprocessing, seed: int) -> tuple[list[NDArray[np.uint8]], NDArray[np.uint8]]:
    """An image's planes as they lie in memory, and the same image as RGB. Noise over a ramp: no two rows alike."""
    random = np.random.default_rng(seed)
    height, width = what.original_size
    if what.pixels.startswith("nv12"):
        luma = random.integers(0, 256, (height, width), np.uint8)
        chroma = random.integers(0, 256, (height // 2, width // 2, 2), np.uint8)
        return [luma, chroma.reshape(height // 2, width)], nv12_to_rgb(luma, chroma, what.pixels)
    ramp = np.linspace(0, 200, height * width).reshape(height, width, 1)
    image = (ramp + random.integers(3, 52, (height, width, 3))).astype(np.uint8)
    image[random.random((height, width)) < 0.2] = random.choice([2, 253])
    return [image.reshape(height, 3 * width)], image[:, :, ::-1] if what.pixels == "bgr" else image


def pitched(plane: NDArray[np.uint8], pad: int) -> NDArray[np.uint8]:
    """A plane's bytes with `pad` more after each row but the last, which a caller need not own."""
    wide = np.pad(plane, ((0, 0), (0, pad)), constant_values=77).reshape(-1)
    return wide[: wide.size - pad]


def frame(what: Preprocessing) -> Geometry:
    return Geometry(what.image_size, what.image_size, what.image_size // 4, what.normalization)


def expected(what: Preprocessing, rgb: NDArray[np.uint8]) -> NDArray[Any]:
    """The CPU path's."""
    geometry = frame(what)
    prepared = normalize_and_pad(resize_image(np.ascontiguousarray(rgb), geometry), geometry)[0]
    return prepared.astype(np.float16 if what.precision == "fp16" else np.float32)


def assert_same_bits(result: NDArray[Any], wanted: NDArray[Any]) -> None:
    """Bit by bit."""
    bits = f"u{wanted.itemsize}"
    differing = np.argwhere(result.view(bits) != wanted.view(bits))
    assert differing.size == 0, (
        f"{len(differing)} of {wanted.size} values differ, the first at {differing[0].tolist()}: "
        f"{result[tuple(differing[0])]} for {wanted[tuple(differing[0])]}"
    )


def check_case(case: Case, kernels: Kernels, device: Device) -> None:
    """Resized values, normalised, padded."""
    what, side = case.what, case.what.image_size
    with GuardedMemory(device) as memory:
        workspace = memory.scratch(preprocess_workspace_bytes(kernels, what))
        prepare_preprocess(kernels, what, workspace)
        # The second image through the same weights.
        for seed in (1, 2):
            planes, rgb = random_planes(what, seed)
            addresses = [memory.put(pitched(plane, case.pad), case.offset) for plane in planes]
            pitches = [plane.shape[1] + case.pad for plane in planes]
            image = ImagePlanes(addresses[0], pitches[0])
            if len(planes) == 2:
                image = replace(image, chroma=addresses[1], chroma_pitch=pitches[1])
            wanted = expected(what, rgb)
            out = memory.room(wanted.nbytes)
            preprocess(kernels, what, image, out, workspace)
            assert_same_bits(memory.read(out, (3, side, side), wanted.dtype), wanted)


@dataclass(frozen=True)
class OrderedPreprocessing(Preprocessing):
    """With the order of passes that is asked for, not the one of the installed Pillow."""

    down_first: bool = False

    @property
    def vertical_first(self) -> bool:
        return self.down_first


def check_order(down_first: bool, kernels: Kernels, device: Device) -> None:
    """Either order of passes, whatever Pillow is installed: it resizes one axis at a time here."""
    what = OrderedPreprocessing((200, 60), 64, META, down_first=down_first)
    (height, width), (input_height, input_width) = what.original_size, what.input_size
    planes, rgb = random_planes(what, 3)
    between = (width, input_height) if down_first else (input_width, height)
    bilinear = PIL.Image.Resampling.BILINEAR
    resized = PIL.Image.fromarray(rgb).resize(between, bilinear).resize((input_width, input_height), bilinear)
    wanted = normalize_and_pad(np.asarray(resized), frame(what))[0]
    with GuardedMemory(device) as memory:
        workspace, out = memory.scratch(preprocess_workspace_bytes(kernels, what)), memory.room(wanted.nbytes)
        prepare_preprocess(kernels, what, workspace)
        preprocess(kernels, what, ImagePlanes(memory.put(planes[0]), 3 * width), out, workspace)
        assert_same_bits(memory.read(out, wanted.shape, np.float32), wanted)


def check_plain(kernels: Kernels, device: Device) -> None:
    """An image of one colour has no range for min_max: all zeros, as on the CPU."""
    what = Preprocessing((20, 30), 32, MIN_MAX)
    with GuardedMemory(device) as memory:
        workspace = memory.scratch(preprocess_workspace_bytes(kernels, what))
        prepare_preprocess(kernels, what, workspace)
        out = memory.room(4 * 3 * 32 * 32)
        image = memory.put(np.full((20, 90), 200, np.uint8))
        preprocess(kernels, what, ImagePlanes(image, 90), out, workspace)
        assert not memory.read(out, (3, 32, 32), np.float32).any()


def check_far_rows(kernels: Kernels, device: Device) -> None:
    """Rows further apart than 32 bits can say; nothing between them is touched."""
    what, pitch = Preprocessing((2, 8), 16, META), 2**31 + 64
    planes, rgb = random_planes(what, 4)
    wanted = expected(what, rgb)
    far = device.allocate(pitch + 24)
    try:
        for row in (0, 1):
            device.upload(far + row * pitch, planes[0][row].tobytes())
        with GuardedMemory(device) as memory:
            workspace, out = memory.scratch(preprocess_workspace_bytes(kernels, what)), memory.room(wanted.nbytes)
            prepare_preprocess(kernels, what, workspace)
            preprocess(kernels, what, ImagePlanes(far, pitch), out, workspace)
            assert_same_bits(memory.read(out, wanted.shape, np.float32), wanted)
    finally:
        device.release(far)


def check_bt709(_: Kernels, __: Device) -> None:
    """The integers of BT.709 against its definition in real numbers: off by rounding at most."""
    levels = np.arange(0, 256, 5)
    y, u, v = (axis.astype(np.uint8) for axis in np.meshgrid(levels, levels, levels, indexing="ij"))
    luma = y.reshape(1, -1).repeat(2, axis=0).repeat(2, axis=1)
    chroma = np.stack([u, v], axis=-1).reshape(1, -1, 2)
    result = nv12_to_rgb(luma, chroma, "nv12_bt709").astype(np.float64)
    grey = np.maximum(luma.astype(np.float64) - 16, 0) * 255 / 219
    blue, red = ((chroma[..., i].repeat(2, axis=1).astype(np.float64) - 128) * 255 / 224 for i in (0, 1))
    k_red, k_blue = 0.2126, 0.0722
    to_red, to_blue = 2 * (1 - k_red), 2 * (1 - k_blue)
    green = -(k_red * to_red * red + k_blue * to_blue * blue) / (1 - k_red - k_blue)
    wanted = np.stack([grey + to_red * red, grey + green, grey + to_blue * blue], axis=-1)
    assert np.abs(result - np.clip(wanted, 0, 255)).max() <= 0.501


def check_input_size(kernels: Kernels, _: Device) -> None:
    """Meta's rounding, as Python does it."""
    sides = (1, 2, 3, 333, 427, 640, 999, 1080, 1920, 2048, 3000)
    for height, width, side in itertools.product(sides, sides, (256, 1000, 1024)):
        result = ctypes.c_int32(), ctypes.c_int32()
        kernels.call("samrt_input_size", *map(ctypes.c_int32, (height, width, side)), *map(ctypes.byref, result))
        assert (result[0].value, result[1].value) == Preprocessing((height, width), side, META).input_size


def check_floor(kernels: Kernels, _: Device) -> None:
    """Bytes of the image, and of the planes in their precision."""
    assert preprocess_floor_bytes(kernels, Preprocessing((20, 30), 16, META)) == 20 * 30 * 3 + 3 * 16 * 16 * 4
    nv12 = Preprocessing((20, 30), 16, META, "nv12_bt709", "fp16")
    assert preprocess_floor_bytes(kernels, nv12) == 20 * 30 + 10 * 15 * 2 + 3 * 16 * 16 * 2


def check_refusals(kernels: Kernels, _: Device) -> None:
    """Each wrong argument by its own message, before anything runs: the addresses are none."""
    good: dict[str, Any] = {
        "image": 4096, "out": 4096, "workspace": 4096, "image_pitch": 30, "height": 8, "width": 10, "pixels": 0,
        "input_height": 13, "input_width": 16, "image_size": 16, "format": 2, "normalization": 1,
    }  # fmt: skip
    nv12 = {"pixels": 2, "image_pitch": 10, "chroma": 4096, "chroma_pitch": 10}
    no_range = {"normalization": 0, "std": (1.0, 0.0, 1.0)}
    not_finite = {"normalization": 0, "std": (1.0, 1.0, 1.0), "mean": (float("nan"), 0.0, 0.0)}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"image": None}, "image or out is NULL"),
        ({"out": None}, "image or out is NULL"),
        ({"out": 4098}, "not aligned to its elements of 4 bytes"),
        ({"workspace": None}, "workspace"),
        ({"workspace": 4104}, "aligned to 16 bytes"),
        ({"image_pitch": 29}, "image_pitch is 29 bytes, but a row has 30"),
        ({"image_pitch": -30}, "image_pitch is -30 bytes"),
        ({"height": 0}, "the image is 0 x 10"),
        ({"width": 65537, "image_pitch": 1 << 20}, "sides must be 1 to 65536"),
        ({"image_size": 0}, "image_size is 0"),
        ({"image_size": 16385}, "1 to 16384"),
        ({"input_width": 17}, "its sides must be 1 to image_size, 16"),
        ({"input_height": 0}, "the input is 0 x 16"),
        ({"pixels": 4}, "unknown pixels 4"),
        ({"format": 1}, "unknown number format 1"),
        ({"normalization": 2}, "unknown normalization 2"),
        ({"vertical_first": 2}, "vertical_first is 2"),
        (no_range, "std 0 of channel 1"),
        (not_finite, "mean nan"),
        ({**nv12, "height": 7}, "even sides, not 7 x 10"),
        ({**nv12, "chroma": None}, "NV12 needs chroma"),
        ({**nv12, "chroma_pitch": 9}, "chroma_pitch is 9 bytes, but a row has 10"),
    ]
    for wrong, message in refused:
        expect_refusal(kernels, "samrt_preprocess", PreprocessArgs(**{**good, **wrong}), message)
    expect_refusal(kernels, "samrt_preprocess_prepare", PreprocessArgs(**{**good, "workspace": None}), "workspace")
    expect_refusal(kernels, "samrt_preprocess", None, "args is NULL")


CHECKS: dict[str, Check] = {
    **{name: partial(check_case, each) for name, each in CASES.items()},
    "rows first": partial(check_order, False),
    "columns first": partial(check_order, True),
    "one colour": check_plain,
    "far rows": check_far_rows,
    "bt709": check_bt709,
    "input size": check_input_size,
    "floor": check_floor,
    "refusals": check_refusals,
}

if __name__ == "__main__":
    check_main(CHECKS)
