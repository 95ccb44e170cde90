"""The standard streams, where one of them is closed, full, or read by nobody."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from samrt.visible import visible


def open_missing() -> None:
    """Put the null device in place of each standard stream that is closed.

    Otherwise Python has None there, and the next file that is opened gets the stream's number, and with it whatever a
    library prints.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - until the process ends


def is_closed(stream: TextIO) -> bool:
    """Whether `open_missing` put the null device there."""
    return getattr(stream, "name", None) == os.devnull


def show(text: str = "") -> None:
    """Write a line to stdout."""
    print(visible(text))


def tell(text: str) -> None:
    """Write a line to stderr. What cannot be told must not stop the work, nor change the exit status."""
    try:
        sys.stderr.write(f"{visible(text)}\n")
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)


def settle(stream: TextIO) -> None:
    """Flush a stream on the way out of an error, which counts for more than one of the stream."""
    try:
        stream.flush()
    except OSError:
        discard(stream)


@contextlib.contextmanager
def quiet_pictures() -> Iterator[None]:
    """Keep off stderr what C libraries print there of a picture (libtiff, libpng): the error has what matters.

    For a command that reads pictures, as a decorator of its `run`; only while one is open does stderr go nowhere.
    """
    from samrt.images.picture import AROUND

    token = AROUND.set(_quiet)
    try:
        yield
    finally:
        AROUND.reset(token)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Python's own stderr goes nowhere too, so nothing is to be told in the block."""
    if os.environ.get("SAMRT_DEBUG"):
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def discard(stream: TextIO) -> None:
    """Let what is in a stream, and what comes, go nowhere, so that the interpreter's own flush at exit cannot fail."""
    with contextlib.suppress(io.UnsupportedOperation):
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
