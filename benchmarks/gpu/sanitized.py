"""The program that compute-sanitizer watches: the kernels at small sizes, or a planted fault.

python sanitized.py LIBRARY MODULE | planted TOOL
"""

from __future__ import annotations

import sys
from pathlib import Path

import kernel_checks
import planted_faults
from driver import Driver

# By module of tests/kernels: each way through the kernels, at sizes that take less than a minute under a sanitizer.
SMALL = {
    # Each runs every compiled kernel, under a tool that makes it a hundred times slower.
    "check_attention": ("5x7", "9x33", "windows of 14, padded", "without bias, windows of 14"),
    "check_image": (
        "down by 7.3",
        "up by 3, odd sizes",
        "one pixel",
        "odd rows, unaligned",
        "fp16, odd side",
        "min and max",
        "min and max, fp16, bgr",
        "nv12",
        "nv12, unaligned",
        "nv12, 709, fp16",
        "tall tiles",
        "tall tiles, fp16",
        "tall tiles, nv12",
        "tall tiles, nv12, fp16",
        "columns first",
        # Vertical pass first with Pillow 13 only.
        "tall, bgr, unaligned, fp16, min and max",
        "tall, nv12",
        "tall, nv12, fp16",
    ),
    "check_masks": (
        "portrait, tiles cut at the edges",
        "words not aligned by address",
        "one pixel",
        "many columns",
        "fp16",
        "more runs than there is room for",
        "parts",
    ),
}


def main(what: str, which: str) -> None:
    if what == "planted":
        planted_faults.run(which)
        return
    from samrt.kernels.library import load_kernels

    driver = Driver()  # before torch is imported: the sanitizer waits for a first call
    try:
        kernel_checks.names(which)
    except ImportError as error:
        sys.exit(f"no kernel ran: {error}")
    kernels, where = load_kernels(Path(what)), kernel_checks.device(driver)
    for name in SMALL[which]:
        kernel_checks.run(which, name, kernels, where)
    print("ran to the end", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
